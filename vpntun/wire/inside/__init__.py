"""Records by which one vpntun asks the other something inside the tunnel."""
