"""Decisions without I/O: what every room above shares. Time is an argument, and nothing here opens a descriptor."""
