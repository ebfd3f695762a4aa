"""This host's network while a tunnel runs: its changes, and the routes of the tunnel's own packets."""
