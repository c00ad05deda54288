"""Opaque tokens (RFC 7662)."""
