"""Choice of carriers: which one the client and the server use, and when they ask for a handshake again."""
