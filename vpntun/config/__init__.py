"""The roof: what the operator asked for, checked, as frozen dataclasses."""
