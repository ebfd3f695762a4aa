"""Operating system services for any daemon: event loop, log, child processes, accounts, state files."""
