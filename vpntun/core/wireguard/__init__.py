"""WireGuard itself: peers, their handshakes, sessions and timers, and the indices that lead to them."""
