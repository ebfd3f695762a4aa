"""Forwards: connections and datagrams that are accepted on one side of the tunnel and passed on at the other."""
