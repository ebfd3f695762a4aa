"""Which carrier to use and when to ask again: the client's choice and the server's."""
