"""TUN and TAP devices: opening, reading, writing, and making them persistent."""
