"""The remote decision point: AuthZEN messages, transports, breaker, decision cache and fallback."""
