"""Compares vpntun with other tunnels on one machine. `scripts/bench` runs it; how to use it stands in __main__.py."""
