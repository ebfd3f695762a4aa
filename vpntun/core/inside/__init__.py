"""Requests between two vpntuns inside the tunnel: repeated by who asks, limited by who answers."""
