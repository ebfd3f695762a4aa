"""This host's packet filter: what a full tunnel needs of it, in tables that vanish with this process."""
