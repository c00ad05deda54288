"""Tokens that are worth nothing without what they are bound to."""
