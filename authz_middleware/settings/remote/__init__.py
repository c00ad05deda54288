"""The table `[remote]`: the decision point, and everything about how it is asked."""
