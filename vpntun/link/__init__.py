"""Links: each sends to one peer, processes what that peer sends, and carries out what the core decides."""
