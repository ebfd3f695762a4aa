"""Cryptography: keys, the handshake and sessions. Time is an argument; nothing here uses descriptors."""
