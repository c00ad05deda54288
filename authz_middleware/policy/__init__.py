"""The policy engine: a document becomes a model, the model a snapshot, and the snapshot decides."""
