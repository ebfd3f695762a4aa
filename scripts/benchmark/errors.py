"""The one error of the benchmark."""


class BenchError(Exception):
    """A step that failed; the message says which, and what the program concerned said."""
