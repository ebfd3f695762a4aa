"""Commands that reach through a tunnel: a program inside it, forwards, and services by name."""
