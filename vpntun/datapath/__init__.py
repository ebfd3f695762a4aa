"""The path of a packet: from the device to a link and out by a carrier, and back."""
