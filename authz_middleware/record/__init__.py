"""The decision log: one record of every decision, written off the request path."""
