"""Bytes on the wire: messages, records, packets and headers, without keys, time or descriptors."""
