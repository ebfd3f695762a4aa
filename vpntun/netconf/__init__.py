"""Changes to this host's network, made by netlink and taken back at the end: addresses, routes, rules, name servers."""
