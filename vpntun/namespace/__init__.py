"""Network namespace of `vpntun run`: made without root, with the tunnel as the only way out of it."""
