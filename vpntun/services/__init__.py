"""Services by name: what peers offer to each other through a hub, without addresses."""
