"""Floor 1: keys, the handshake and sessions. Time is an argument; knows nothing of descriptors."""
