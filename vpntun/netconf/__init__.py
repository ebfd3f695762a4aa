"""This host's network: addresses, routes, rules and name servers, set up and taken back at the end."""
