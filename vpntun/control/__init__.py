"""The control socket: who asks a running tunnel, and what it answers."""
