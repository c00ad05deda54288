"""Where revocations come from, beside people: status lists, signed lists, pushed events."""
