"""Who calls: from an Authorization header to a verified `Principal`, or to the reason why there is none."""
