"""Live view of running tunnels, in a terminal or as plain text."""
