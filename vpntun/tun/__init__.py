"""TUN devices: opening, reading, writing, and making them persistent."""
