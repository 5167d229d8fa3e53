"""Notes in a folder."""
