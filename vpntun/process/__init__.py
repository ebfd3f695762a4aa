"""The daemon as a process: background, pid file, privileges, systemd, hooks."""
