"""This project's own decision point: the same engine and policy behind the AuthZEN API. Needs the extra `[server]`."""
