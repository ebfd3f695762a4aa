"""Carriers: the sockets that messages leave and arrive by. One file a carrier."""
