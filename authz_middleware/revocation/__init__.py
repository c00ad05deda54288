"""Revocation: what has been taken back before its time, and how that reaches the next decision of every process."""
