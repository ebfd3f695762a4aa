"""Clients behind a router that translates addresses, and forgets a UDP mapping that is idle for two seconds.

    a  192.168.50.2  ==  192.168.50.1  c, the router  10.0.1.3  ==  10.0.1.2  b

vpntun in a calls wireguard-go in b, and wireguard-go in a calls vpntun in b.
"""

from __future__ import annotations

import sys

import pytest

from tests.netns.lab import PORT, Lab, firewall, until
from tests.netns.wireguard import WG_PORT, Keys, WireGuard, start_from_file

FORGETS_AFTER = 2  # seconds
SECONDS = 10
COUNT_MAPPINGS = """
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket
print(sum(1 for _ in NFCTSocket().dump()))
"""
NETWORKS = {"vpntun1": "10.7.1", "vpntun2": "10.7.2", "wg1": "10.8.1", "wg2": "10.8.2"}
"""The first three numbers of the addresses in each client's tunnel: the server's end in 1, the client's in 2."""


class Router:
    """The router, and the servers and clients on both sides of it."""

    def __init__(self, lab: Lab, keys: Keys) -> None:
        self.lab, self.keys = lab, keys
        self.machine = router = lab.add("c", "10.0.1.3", "fd02::3")
        lab.a.run("ip", "link", "delete", "veth0")
        lab.cable(lab.a, "veth0", router, "inside")
        lab.cable(lab.b, "veth0", router, "outside")
        lab.a.run("sh", "-ec", "ip addr add 192.168.50.2/24 dev veth0; ip route add default via 192.168.50.1")
        lab.b.run("ip", "addr", "add", "10.0.1.2/24", "dev", "veth0")
        router.run("sh", "-ec", "ip addr add 192.168.50.1/24 dev inside; ip addr add 10.0.1.3/24 dev outside")
        self._masquerade("-A", "40000-40999")
        [tool, _] = firewall()
        for rule in ("-i inside", "-m conntrack --ctstate ESTABLISHED"):
            router.run(tool, "-w", "-A", "FORWARD", *rule.split(), "-j", "ACCEPT")
        router.run(tool, "-w", "-P", "FORWARD", "DROP")
        timeouts = (f"net.netfilter.nf_conntrack_udp_timeout{kind}={FORGETS_AFTER}" for kind in ("", "_stream"))
        router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", *timeouts)
        self.identities = {name: lab.new_identity(name) for name in NETWORKS}
        self._start_servers()

    def get_other_address(self) -> None:
        """Replace the router's address outside by 10.0.1.4, and its ports by those from 41000 on."""
        self._masquerade("-D", "40000-40999")
        self._masquerade("-A", "41000-41999")
        self.machine.run("sh", "-ec", "ip addr del 10.0.1.3/24 dev outside; ip addr add 10.0.1.4/24 dev outside")

    def start_client(self, name: str, keepalive: int = 0) -> None:
        """Start a client in a, and wait until it is connected."""
        file, _ = self.identities[name]
        net = NETWORKS[name]
        if name.startswith("wg"):
            client = WireGuard(self.lab.a, file, device=name, port=0)
            settings = "endpoint", f"10.0.1.2:{PORT}", "persistent-keepalive", str(keepalive)
            client.set("peer", self.keys.ours.public, "allowed-ips", f"{net}.0/24", *settings)
            client.up(f"{net}.2/24")
        else:
            own = f"[Interface]\nPrivateKey = {file.read_text()}\nAddress = {net}.2/24\n"
            peer = f"[Peer]\nPublicKey = {self.keys.theirs.public}\nAllowedIPs = {net}.0/24\n"
            called = f"Endpoint = 10.0.1.2:{WG_PORT}\nPersistentKeepalive = {keepalive}\n"
            start_from_file(self.lab.a, name, own + peer + called)
        self.lab.ping(self.lab.a, f"{net}.1")

    def seen_at(self, name: str) -> str:
        """Where the server of a client sees it."""
        public = self.identities[name][1]
        if name.startswith("wg"):
            peers = self.lab.b.status("server")["peers"]
            return next(str(peer["endpoint"]) for peer in peers if peer["public_key"] == public)
        return self.wireguard.shown("endpoints", public)

    def mappings(self) -> int:
        """How many mappings the router has."""
        return int(self.machine.run(sys.executable, "-c", COUNT_MAPPINGS).stdout)

    def all_talk(self) -> bool:
        """Let all clients call their servers and the servers all clients, and return whether all were answered."""
        for net in NETWORKS.values():
            self.lab.ping(self.lab.a, f"{net}.1", SECONDS)
        return self.reached() == set(NETWORKS)

    def reached(self) -> set[str]:
        """The clients that answer their servers."""
        command = "ping", "-n", "-c1", "-W1"
        return {n for n, net in NETWORKS.items() if not self.lab.b.run(*command, f"{net}.2", check=False).returncode}

    def _masquerade(self, action: str, ports: str) -> None:
        rule = f"POSTROUTING -o outside -p udp -j MASQUERADE --to-ports {ports}"
        self.machine.run(firewall()[0], "-w", "-t", "nat", action, *rule.split())

    def _start_servers(self) -> None:
        self.wireguard = WireGuard(self.lab.b, self.keys.theirs.file)
        own = f"[Interface]\nPrivateKey = {self.keys.ours.file.read_text()}\nListenPort = {PORT}\n"
        lines = [own, "Address = 10.8.1.1/24, 10.8.2.1/24"]
        for name, (_, public) in self.identities.items():
            if name.startswith("wg"):
                lines += ["[Peer]", f"PublicKey = {public}", f"AllowedIPs = {NETWORKS[name]}.2/32"]
            else:
                self.wireguard.set("peer", public, "allowed-ips", f"{NETWORKS[name]}.2/32")
        self.wireguard.up("10.7.1.1/24", "10.7.2.1/24")
        start_from_file(self.lab.b, "server", "\n".join((*lines, "")))


@pytest.fixture
def router(lab: Lab, keys: Keys) -> Router:
    return Router(lab, keys)


def test_a_server_reaches_an_idle_client_only_if_that_has_a_persistent_keepalive(router: Router) -> None:
    for name in NETWORKS:
        router.start_client(name, keepalive=1 if name.endswith("1") else 0)
    # The clients answer, so what they sent was last, and none owes its server a keepalive.
    assert until(router.all_talk, SECONDS)
    assert until(lambda: router.mappings() <= 2, SECONDS)
    assert until(lambda: router.reached() == {"vpntun1", "wg1"}, SECONDS), router.lab.logs()


@pytest.mark.parametrize("client", ["vpntun1", "wg1"])
def test_a_server_follows_a_client_whose_router_gets_another_address(router: Router, client: str) -> None:
    router.start_client(client)
    assert router.seen_at(client).startswith("10.0.1.3:40")
    router.lab.a.popen("ping", "-n", "-i0.05", f"{NETWORKS[client]}.1")
    router.get_other_address()
    assert until(lambda: router.seen_at(client).startswith("10.0.1.4:41"), SECONDS), router.lab.logs()
    router.lab.ping(router.lab.b, f"{NETWORKS[client]}.2", within=SECONDS)
