"""Floor 0: bytes on the wire. Knows nothing of keys, time or descriptors."""
