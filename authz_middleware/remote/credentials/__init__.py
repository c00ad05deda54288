"""What the decision point is shown to know who asks."""
