"""Compares vpntun with other tunnels on one machine. `scripts/bench` runs it; __main__.py describes its use."""
