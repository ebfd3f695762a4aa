"""Senders: what puts packets into messages to one peer or another."""
