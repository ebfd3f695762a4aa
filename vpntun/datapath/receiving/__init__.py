"""Receiving: from a carrier to a link, and from the links to the device."""
