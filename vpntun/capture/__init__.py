"""Captures of the packets inside a tunnel: which packets, as pcapng, bounded; and the reader of what was written"""
