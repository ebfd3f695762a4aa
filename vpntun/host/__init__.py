"""Floor 3: this machine: device, sockets, netlink, files and the one loop. Acts; knows nothing of policy."""
