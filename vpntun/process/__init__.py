"""The daemon's manners: background, pid file, privileges, systemd, hooks."""
