"""Examination of this machine and of its tunnels (`vpntun doctor`): what is wrong, and what to do about it."""
