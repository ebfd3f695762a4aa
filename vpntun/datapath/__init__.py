"""Data path: packets from the device through a link to a carrier, and back."""
