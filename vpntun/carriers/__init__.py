"""Carriers: the sockets that send and receive messages. One file for each carrier."""
