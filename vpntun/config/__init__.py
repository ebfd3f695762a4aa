"""Configuration: files, keys and options, checked and turned into frozen dataclasses."""
