"""Choice of carriers: which one client and server use, and when they ask for a handshake again."""
