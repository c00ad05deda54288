"""What the connection and its headers show of whoever sends a request."""
