"""WireGuard's configuration protocol (UAPI), by which wg(8) shows and changes a tunnel."""
