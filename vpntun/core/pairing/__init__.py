"""Pairing of two machines by a code: its messages, and the decisions of server and client."""
