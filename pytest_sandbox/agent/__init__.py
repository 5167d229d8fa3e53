"""The agent: its wire protocol, the client that speaks it, and the binaries."""
