"""Floor 2: the peer, its timers, its carriers and the route table. Decides; knows nothing of clocks or descriptors."""
