"""What carries a question to the decision point: HTTP in both colours, by a deadline."""
