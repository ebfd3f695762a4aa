"""Decisions without I/O, and their building blocks: events, queue, routes, token bucket.

Time is an argument, and nothing here opens a descriptor.
"""
