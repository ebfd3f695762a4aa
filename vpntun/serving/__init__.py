"""Serving of requests on sockets: who may connect, limits on clients, and HTTP."""
