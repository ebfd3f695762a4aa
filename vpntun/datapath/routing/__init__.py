"""Routing of IP packets: from the device to links by destination, and from links to the device by allowed IPs."""
