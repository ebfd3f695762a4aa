"""WireGuard's state machine: peers with their handshakes, sessions and timers, found by index."""
