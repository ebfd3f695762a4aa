"""Name server on the tunnel's own addresses, for the peers alone."""
