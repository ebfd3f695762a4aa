"""TUN devices: open, read, write, and make persistent."""
