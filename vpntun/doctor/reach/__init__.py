"""Reach of another machine: whether its name, port and keys are right, shown by an authenticated answer."""
