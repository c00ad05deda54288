"""What is said to a decision point and what it says: the messages of AuthZEN 1.0, read strictly."""
