"""Pairing of two machines before their tunnel starts: sockets, terminal, and the key files of both ends."""
