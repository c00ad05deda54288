"""Workloads that are known by their SPIFFE ID."""
