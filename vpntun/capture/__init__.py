"""Captures of the packets inside a tunnel: selected, bounded, written as pcapng, read again, and described."""
