"""The other end's half of an examination: what one vpntun tells another that asks inside the tunnel."""
