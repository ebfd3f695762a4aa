"""SOCKS5 proxy of `vpntun run`, whose connections, datagrams and look-ups leave by the tunnel."""
