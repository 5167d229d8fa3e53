"""What a session does, written once, async, for any engine."""
