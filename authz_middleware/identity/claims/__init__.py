"""What a token says of its principal, of those who act for it and of what they may."""
