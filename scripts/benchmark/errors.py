"""The only exception that the benchmark raises."""


class BenchError(Exception):
    """A failed step; the message names it and quotes the output of the program concerned."""
