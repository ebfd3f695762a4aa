"""Status of a tunnel with one peer, of which everything is known, and the text that `show` prints of it."""

from __future__ import annotations

from typing import Any

NOW = 1_700_000_000.0
PEER: dict[str, Any] = {
    "public_key": "cGVlcnBlZXJwZWVycGVlcnBlZXJwZWVycGVlcnBlZXI=",
    "name": "office",
    "preshared_key": True,
    "endpoint": "203.0.113.2:55555",
    "unresolved": None,
    "carrier": "udp",
    "state": "connected",
    "carrier_up": True,
    "carrier_up_for": 7200,
    "carrier_reason": "it answered first",
    "carrier_reason_for": None,
    "handshake_fresh": True,
    "handshake_fresh_for": 7201,
    "data_verified": True,
    "data_verified_for": 63,
    "data_verified_age": 1,
    "data_unanswered_for": None,
    "allowed_ips": ["10.0.0.0/24", "fd00::/64"],
    "allowed_macs": [],
    "mac_count": None,
    "macs": None,
    "latest_handshake": NOW - 63,
    "latest_handshake_age": 63,
    "latest_received": NOW - 1,
    "latest_received_age": 1,
    "received_bytes": 1_300_000,
    "sent_bytes": 3072,
    "persistent_keepalive": 25.0,
    "vpntun": True,
    "round_trip": 0.01234,
    "loss": 0.00125,
    "span": 44,
    "protected": True,
    "record_bytes": 63_800,
    "path_mtu": 1500,
    "delivered_rate": 29_312_500,
    "datagrams_sent": 1_234_567,
    "datagrams_lost": 1543,
    "records_restored": 1,
    "records_unfinished": 2,
    "queue": {"packets": 1, "bytes": 1400},
    "drops": {"source not allowed": 3, "queue full": 12},
}
FORWARD: dict[str, Any] = {
    "protocol": "tcp",
    "from": "here",
    "listen": ":6443",
    "target": "192.168.127.2:6443",
    "of_file": True,
    "since": NOW - 63,
    "connections": 2,
    "connections_total": 1234,
    "connections_refused": 0,
    "connections_failed": 1,
    "sent_bytes": 3072,
    "received_bytes": 1_300_000,
    "last_failure": "Connection refused",
}
SOCKS5: dict[str, Any] = {
    "listen": "127.0.0.1:1080",
    "connections": 2,
    "connections_total": 5,
    "connections_refused": 0,
    "connections_failed": 1,
    "sent_bytes": 3072,
    "received_bytes": 1_300_000,
    "last_failure": "spoke another protocol: set it to SOCKS version 5",
}
STATUS: dict[str, Any] = {
    "interface": "tun3",
    "version": "0.1.0",
    "pid": 4242,
    "started": NOW - 2 * 86400 - 3602,
    "uptime": 2 * 86400 + 3602,
    "clock": 2 * 86400 + 3602.5,
    "starting": None,
    "public_key": "b3Vyc291cnNvdXJzb3Vyc291cnNvdXJzb3Vyc291cnM=",
    "listen_port": 55555,
    "waits": "auto",
    "mtu": 1500,
    "device": "tun",
    "mac": None,
    "bridge": None,
    "in_bridge": None,
    "mac_count": None,
    "macs": None,
    "addresses": ["10.0.0.1/24"],
    "relay": True,
    "dscp": False,
    "drops": {"unknown peer": 2},
    "forwards": [FORWARD],
    "socks5": None,
    "peers": [PEER],
}
TEXT = """\
interface: tun3
  public key: b3Vyc291cnNvdXJzb3Vyc291cnNvdXJzb3Vyc291cnM=
  listening port: 55555
  mtu: 1500
  addresses: 10.0.0.1/24
  relay: from peer to peer
  up for: 2 days, 1 hour, 2 seconds
  dropped: 2 unknown peer
  forward: tcp :6443 192.168.127.2:6443, 2 of 1,234 connections open, 1 failed, 3.00 KiB sent, 1.24 MiB received

peer: cGVlcnBlZXJwZWVycGVlcnBlZXJwZWVycGVlcnBlZXI=
  name: office
  preshared key: (hidden)
  endpoint: 203.0.113.2:55555
  carrier: UDP for 2 hours (it answered first)
  handshake: fresh for 2 hours, 1 second
  data: verified for 1 minute, 3 seconds, last proof 1 second ago
  state: connected
  allowed ips: 10.0.0.0/24, fd00::/64
  latest handshake: 1 minute, 3 seconds ago
  latest received: 1 second ago
  transfer: 1.24 MiB received, 3.00 KiB sent
  persistent keepalive: every 25 seconds
  round trip: 12.34 ms
  loss: 0.12%, protected
  records: up to 44 datagrams, 62.30 KiB
  path mtu: 1500
  delivered: 234.50 Mbit/s
  lost on the way: 1,543 of 1,234,567 datagrams
  restored: 1 record
  unfinished: 2 records
  queue: 1 packet, 1.37 KiB
  dropped: 12 queue full, 3 source not allowed"""
