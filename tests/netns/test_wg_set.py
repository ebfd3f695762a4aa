"""wg(8) changes running tunnels as it would change WireGuard's; the machines are those of lab.py.

The server srv in b starts without peers, and the client cli in a calls it. What wg may not change is at the end.
"""

from __future__ import annotations

import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.netns.lab import PORT, STARTED, Daemon, Lab, Machine, far, firewall, memory, start_pair, until
from vpntun.crypto.keys import KeyPair, format_key

pytestmark = pytest.mark.skipif(shutil.which("wg") is None, reason="wg is not installed")

SECONDS = 10.0
LONGEST_STALL = 8000.0
"""Milliseconds that packets may wait for a large change; a few hundred on an idle machine, 3,500 on a busy one."""
HERE, THERE = "10.9.0.2", "10.9.0.1"
NONE = "(none)"


class Pair:
    """The server srv in b and the client cli in a, whose peer it is. `own` and `server`: their keys.

    `is_known`: whether the server's file has the client, too.
    """

    def __init__(self, lab: Lab, *, is_known: bool) -> None:
        self.lab, self.a, self.b = lab, lab.a, lab.b
        self.own, self.server = KeyPair.generate(), KeyPair.generate()
        peer = f"[Peer]\nPublicKey = {self.own_key}\nAllowedIPs = {HERE}\n" if is_known else ""
        self.srv = self._start(self.b, "srv", self.server, f"Address = {THERE}/24\nListenPort = {PORT}\n{peer}")
        self.cli = self._start(
            self.a,
            "cli",
            self.own,
            f"Address = {HERE}/24\n[Peer]\nPublicKey = {self.server_key}\nEndpoint = {self.b.four}:{PORT}\n"
            "AllowedIPs = 10.9.0.0/24\nName = hub\n",
        )

    @property
    def own_key(self) -> str:
        return format_key(self.own.public)

    @property
    def server_key(self) -> str:
        return format_key(self.server.public)

    def set_srv(self, *words: str | Path) -> str:
        return wg(self.b, "set", "srv", *words)

    def set_cli(self, *words: str | Path) -> str:
        return wg(self.a, "set", "cli", *words)

    def show_srv(self, what: str) -> str:
        return wg(self.b, "show", "srv", what).strip()

    def show_cli(self, what: str) -> str:
        return wg(self.a, "show", "cli", what).strip()

    def secret(self, key: bytes) -> Path:
        """Write a secret into a file for wg."""
        path = self.lab.folder / f"{len(list(self.lab.folder.iterdir()))}.key"
        path.touch(mode=0o600)
        path.write_text(format_key(key))
        return path

    def sessions(self, daemon: Daemon) -> int:
        return daemon.log.count("session with ")

    def _start(self, machine: Machine, name: str, keys: KeyPair, text: str) -> Daemon:
        path = self.lab.folder / f"{name}.conf"
        path.touch(mode=0o600)
        path.write_text(f"[Interface]\nPrivateKey = {format_key(keys.private)}\n{text}")
        daemon = machine.vpntun("up", path, "-v")
        daemon.wait_for(STARTED, SECONDS)
        return daemon


def wg(machine: Machine, *words: str | Path) -> str:
    """Run wg, and return what it prints, errors included."""
    done = machine.run("wg", *words, check=False)
    return done.stdout + done.stderr


@pytest.fixture
def pair(lab: Lab) -> Pair:
    """The two ends, and the server does not know the client."""
    return Pair(lab, is_known=False)


@pytest.fixture
def met(lab: Lab) -> Pair:
    """The two ends with a session."""
    made = Pair(lab, is_known=True)
    lab.ping(lab.a, THERE, SECONDS)
    return made


def test_a_peer_is_removed_in_the_midst_of_its_traffic(met: Pair) -> None:
    flood = met.a.popen("ping", "-i0.01", "-w20", THERE)
    flood.wait_for("bytes from", SECONDS)
    assert met.set_srv("peer", met.own_key, "remove") == ""
    assert met.show_srv("peers") == ""
    met.lab.no_ping(met.a, THERE, 1)
    flood.stop()
    assert met.srv.log.count("wg has changed peers: 0 added, 1 removed, 0 changed") == 1


def test_a_new_private_key_takes_effect_at_once_and_the_other_end_only_needs_to_learn_it(met: Pair) -> None:
    fresh = KeyPair.generate()
    assert met.set_cli("private-key", met.secret(fresh.private)) == ""
    assert met.show_cli("public-key") == format_key(fresh.public)
    met.lab.no_ping(met.a, THERE, 1)
    assert met.set_srv("peer", format_key(fresh.public), "allowed-ips", HERE, "peer", met.own_key, "remove") == ""
    met.lab.ping(met.a, THERE, SECONDS)
    changed = KeyPair.generate()
    assert met.set_srv("private-key", met.secret(changed.private)) == ""
    words = ("peer", met.server_key, "remove", "peer", format_key(changed.public), "allowed-ips", "10.9.0.0/24")
    assert met.set_cli(*words, "endpoint", f"{met.b.four}:{PORT}") == ""
    met.lab.ping(met.a, THERE, SECONDS)
    for secret in (fresh.private, changed.private):
        assert format_key(secret) not in met.cli.log + met.srv.log
        assert secret.hex() not in met.cli.log + met.srv.log


def test_keys_come_and_go_as_in_wireguards_own_tests(pair: Pair) -> None:
    first, second, psk = KeyPair.generate(), KeyPair.generate(), b"p" * 32
    public = format_key(second.public)
    assert (
        pair.set_srv("private-key", pair.secret(first.private), "peer", public, "preshared-key", pair.secret(psk)) == ""
    )
    assert pair.show_srv("private-key") == format_key(first.private)
    assert pair.show_srv("preshared-keys") == f"{public}\t{format_key(psk)}"
    assert pair.set_srv("private-key", "/dev/null", "peer", public, "preshared-key", "/dev/null") == ""
    assert pair.show_srv("private-key") == NONE
    assert pair.show_srv("preshared-keys") == f"{public}\t{NONE}"
    assert pair.set_srv("private-key", pair.secret(second.private)) == ""
    assert (pair.show_srv("public-key"), pair.show_srv("peers")) == (public, "")
    assert pair.set_srv("peer", public) == ""
    assert pair.show_srv("peers") == "", "it has this end's own key"
    assert pair.set_srv("private-key", pair.secret(pair.server.private), "peer", public) == ""
    assert pair.show_srv("peers") == public


def test_an_allowed_ip_moves_to_the_peer_that_it_is_set_for(met: Pair) -> None:
    other = format_key(KeyPair.generate().public)
    assert "Warning" in met.set_srv("peer", other, "allowed-ips", "10.9.0.77/24,fd00::1/64")
    assert f"{other}\t10.9.0.0/24 fd00::/64" in met.show_srv("allowed-ips")
    met.lab.ping(met.a, THERE, SECONDS)
    assert met.set_srv("peer", other, "allowed-ips", HERE) == ""
    assert set(met.show_srv("allowed-ips").splitlines()) == {f"{met.own_key}\t{NONE}", f"{other}\t{HERE}/32"}
    met.lab.no_ping(met.a, THERE, 1)
    assert met.set_srv("peer", met.own_key, "allowed-ips", HERE) == ""
    met.lab.ping(met.a, THERE, SECONDS)
    assert met.sessions(met.cli) == 1


def test_the_port_changes_and_the_peer_follows(met: Pair) -> None:
    assert met.set_srv("listen-port", str(PORT + 1)) == ""
    assert met.show_srv("listen-port") == str(PORT + 1)
    assert until(lambda: met.show_cli("endpoints") == f"{met.server_key}\t{met.b.four}:{PORT + 1}", SECONDS)
    met.lab.ping(met.a, THERE, SECONDS)
    taken = met.b.popen(sys.executable, "-c", "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); "
                        f"s.bind(('', {PORT})); print('bound', flush=True); time.sleep(60)")  # fmt: skip
    taken.wait_for("bound")
    other = format_key(KeyPair.generate().public)
    assert "Address already in use" in met.set_srv("listen-port", str(PORT), "fwmark", "7", "peer", other)
    assert (met.show_srv("listen-port"), met.show_srv("fwmark")) == (str(PORT + 1), "off")
    assert met.show_srv("peers") == met.own_key
    assert met.set_srv("listen-port", "0") == ""
    assert until(lambda: met.show_srv("listen-port") not in ("0", str(PORT + 1)), SECONDS)
    met.lab.ping(met.a, THERE, SECONDS)
    assert met.set_cli("listen-port", "4500") == ""
    assert until(lambda: met.show_srv("endpoints") == f"{met.own_key}\t{met.a.four}:4500", SECONDS)
    met.lab.ping(met.b, HERE, SECONDS)
    assert met.sessions(met.cli) == 1


def test_the_mark_changes_for_every_packet_of_the_tunnel(met: Pair) -> None:
    [tool, _] = firewall()
    met.a.run(tool, "-A", "OUTPUT", "-m", "mark", "--mark", "77", "-j", "DROP")
    assert met.set_cli("fwmark", "77") == ""
    assert met.show_cli("fwmark") == "0x4d"
    met.lab.no_ping(met.a, THERE, 1)
    assert met.set_cli("fwmark", "off") == ""
    assert met.show_cli("fwmark") == "off"
    met.lab.ping(met.a, THERE, SECONDS)


def test_a_preshared_key_is_used_from_the_next_handshake_on(met: Pair) -> None:
    secret = met.secret(b"p" * 32)
    assert met.set_srv("peer", met.own_key, "preshared-key", secret) == ""
    met.lab.ping(met.a, THERE, SECONDS)
    assert met.set_cli("peer", met.server_key, "preshared-key", secret) == ""
    met.lab.ping(met.a, THERE, SECONDS)
    assert met.sessions(met.cli) == 1
    assert met.set_cli("private-key", met.secret(met.own.private)) == "", "the one that it has"
    assert met.sessions(met.cli) == 1
    assert met.set_cli("private-key", "/dev/null") == ""
    assert met.set_cli("private-key", met.secret(met.own.private)) == ""
    met.lab.ping(met.a, THERE, SECONDS)
    assert met.set_srv("peer", met.own_key, "preshared-key", met.secret(b"q" * 32)) == ""
    assert met.set_cli("private-key", "/dev/null") == ""
    assert met.set_cli("private-key", met.secret(met.own.private)) == ""
    met.lab.no_ping(met.a, THERE, 1)


def test_an_endpoint_is_where_the_next_packets_go_and_the_session_continues(met: Pair) -> None:
    met.b.run("ip", "address", "add", "10.0.0.3/24", "dev", "veth0")
    place = f"10.0.0.3:{PORT}"

    def comes_through_there() -> bool:
        """Set the endpoint, again if a message that was under way has moved it back."""
        assert met.set_cli("peer", met.server_key, "endpoint", place) == ""
        met.lab.ping(met.a, THERE, SECONDS)
        return met.show_cli("endpoints") == f"{met.server_key}\t{place}"

    assert until(comes_through_there, SECONDS)
    assert met.sessions(met.cli) == 1
    for set_endpoint, peer in ((met.set_cli, met.server_key), (met.set_srv, met.own_key)):
        assert "Invalid argument" in set_endpoint("peer", peer, "endpoint", "10.9.0.77:1")
    assert met.show_cli("endpoints") == f"{met.server_key}\t{place}"


def test_a_saved_configuration_comes_back_without_a_new_session(met: Pair) -> None:
    saved = {}
    for machine, name in ((met.a, "cli"), (met.b, "srv")):
        saved[name] = wg(machine, "showconf", name)
        path = met.lab.folder / f"{name}.saved"
        path.write_text(saved[name])
        for command in ("syncconf", "setconf"):
            assert wg(machine, command, name, path) == ""
            assert sorted(wg(machine, "showconf", name).splitlines()) == sorted(saved[name].splitlines())
    assert f"PublicKey = {met.own_key}" in saved["srv"]
    met.lab.ping(met.a, THERE, SECONDS)
    assert met.sessions(met.cli) == met.sessions(met.srv) == 1
    assert "hub" in met.a.run(sys.executable, "-m", "vpntun", "show", "cli").stdout, "the name that wg does not know"


def test_a_saved_configuration_leaves_a_connection_over_tcp_alone(lab: Lab) -> None:
    server, client = start_pair(lab, "--transport", "tcp", "-v")
    lab.ping(lab.a, far(lab), SECONDS)
    for machine, name in ((lab.b, "tun3"), (lab.a, "tun11")):
        path = lab.folder / f"{name}.saved"
        path.write_text(wg(machine, "showconf", name))
        assert "Endpoint" in path.read_text()
        for command in ("syncconf", "setconf"):
            assert wg(machine, command, name, path) == ""
    lab.ping(lab.a, far(lab), SECONDS)
    assert client.log.count("connected to") == server.log.count("connected to") == 1
    assert client.log.count("session with ") == 1
    assert "no UDP socket" not in client.log


def test_setconf_and_syncconf_remove_and_addconf_adds(met: Pair) -> None:
    one, two = (format_key(KeyPair.generate().public) for _ in range(2))
    path = met.lab.folder / "more.conf"
    path.write_text(f"[Peer]\nPublicKey = {one}\nAllowedIPs = 10.8.0.0/16\nPersistentKeepalive = 25\n")
    assert wg(met.b, "addconf", "srv", path) == ""
    assert set(met.show_srv("peers").split()) == {one, met.own_key}
    assert met.show_srv("listen-port") == str(PORT)
    assert f"{one}\t25" in met.show_srv("persistent-keepalive")
    whole = f"[Interface]\nPrivateKey = {format_key(met.server.private)}\nListenPort = {PORT}\n"
    path.write_text(f"{whole}[Peer]\nPublicKey = {two}\n[Peer]\nPublicKey = {met.own_key}\nAllowedIPs = {HERE}\n")
    assert wg(met.b, "syncconf", "srv", path) == ""
    assert set(met.show_srv("peers").split()) == {two, met.own_key}
    met.lab.ping(met.a, THERE, SECONDS)
    path.write_text(f"{whole}[Peer]\nPublicKey = {one}\n")
    assert wg(met.b, "setconf", "srv", path) == ""
    assert met.show_srv("peers") == one
    assert met.show_srv("allowed-ips") == f"{one}\t{NONE}"


def test_exporters_read_everything_from_one_dump(met: Pair) -> None:
    dump = wg(met.a, "show", "all", "dump").splitlines()
    own = ["cli", format_key(met.own.private), met.own_key, met.show_cli("listen-port"), "off"]
    assert dump[0].split("\t") == own
    peer = dump[1].split("\t")
    assert peer[:5] == ["cli", met.server_key, NONE, f"{met.b.four}:{PORT}", "10.9.0.0/24"]
    handshake, received, sent, keepalive = peer[5:]
    assert min(int(handshake), int(received), int(sent)) > 0
    assert keepalive == "off"


def test_130560_allowed_ips_are_set_and_shown_while_another_link_goes_on(met: Pair) -> None:
    lines = ["[Interface]", f"PrivateKey = {format_key(met.server.private)}", f"ListenPort = {PORT}"]
    lines += ["[Peer]", f"PublicKey = {met.own_key}", f"AllowedIPs = {HERE}"]
    lines += ["[Peer]", f"PublicKey = {format_key(KeyPair.generate().public)}"]
    lines += [f"AllowedIPs = {a}.{b}.0.0/16,{a}::{b}/128" for a in range(1, 256) for b in range(256)]
    path = met.lab.folder / "many.conf"
    path.write_text("\n".join(lines))
    before = memory(met.srv)
    traffic = met.a.popen("ping", "-n", "-i0.05", "-w60", THERE)
    traffic.wait_for("bytes from", SECONDS)
    assert wg(met.b, "setconf", "srv", path) == ""
    assert len(met.show_srv("allowed-ips").split()) == 255 * 256 * 2 + 3
    traffic.wait_for("bytes from", SECONDS, count=traffic.log.count("bytes from") + 1)
    traffic.stop()
    assert max(map(float, re.findall(r"time=([\d.]+) ms", traffic.log))) < LONGEST_STALL
    assert met.sessions(met.cli) == 1
    assert "link-down" not in met.srv.log + met.cli.log
    assert memory(met.srv) - before < 250 << 20


def test_a_reload_has_the_file_win(met: Pair) -> None:
    fresh = KeyPair.generate()
    words = (
        "peer",
        met.server_key,
        "allowed-ips",
        "10.10.0.0/16",
        "persistent-keepalive",
        "7",
        "endpoint",
        "10.0.0.9:9",
    )
    assert met.set_cli("fwmark", "9", "listen-port", "4500", "private-key", met.secret(fresh.private), *words) == ""
    assert met.show_cli("allowed-ips") == f"{met.server_key}\t10.10.0.0/16"
    assert "10.10.0.0/16" not in met.a.run("ip", "route").stdout, "wg never changes routes"
    met.cli.process.send_signal(signal.SIGHUP)
    met.cli.wait_for("read the configuration again", SECONDS)
    assert met.show_cli("public-key") == met.own_key
    assert met.show_cli("fwmark") == "off"
    assert met.show_cli("listen-port") != "4500"
    assert met.show_cli("allowed-ips") == f"{met.server_key}\t10.9.0.0/24"
    assert met.show_cli("persistent-keepalive") == f"{met.server_key}\toff"
    met.lab.ping(met.a, THERE, SECONDS)
    assert "restart" not in met.cli.log


def test_nothing_is_sent_to_a_peer_with_a_low_order_key(met: Pair) -> None:
    low = "7P///////////////////////////////////////38="
    sink = met.a.popen(sys.executable, "-c", "import socket; s = socket.socket(type=socket.SOCK_DGRAM); "
                       "s.bind(('127.0.0.1', 1111)); print('bound', flush=True); print(s.recv(9))")  # fmt: skip
    sink.wait_for("bound")
    assert (
        met.set_cli("peer", low, "persistent-keepalive", "1", "endpoint", "127.0.0.1:1111", "allowed-ips", "10.9.0.9")
        == ""
    )
    met.lab.no_ping(met.a, "10.9.0.9", 2)
    assert sink.running
    met.lab.ping(met.a, THERE, SECONDS)


# What wg may not change


def test_a_shared_key_fixes_both_keys_and_wg_may_change_the_rest(lab: Lab) -> None:
    server, client = (
        machine.vpntun(*role, "-k", lab.key)
        for machine, role in ((lab.b, ("-s", "-i", "tun3")), (lab.a, ("-c", lab.b.four, "-i", "tun11")))
    )
    client.wait_for("connected to", SECONDS)
    peer = wg(lab.a, "show", "tun11", "peers").strip()
    secret, _ = lab.new_identity("other.key")
    for words in (("private-key", secret), ("peer", peer, "preshared-key", secret)):
        assert "Operation not supported" in wg(lab.a, "set", "tun11", *words)
    assert client.log.count("derived from the shared key") == 2
    assert wg(lab.a, "set", "tun11", "peer", peer, "persistent-keepalive", "5") == ""
    assert "Operation not supported" in wg(lab.b, "set", "tun3", "listen-port", "0")
    assert wg(lab.b, "set", "tun3", "listen-port", "4500") == ""
    assert lab.b.listens(4500)
    assert not lab.b.listens(PORT)
    lab.ping(lab.a, lab.b.address_of("tun3"), SECONDS)
    assert server.stop() == client.stop() == 0


def test_the_mark_that_a_full_tunnel_needs_stays(lab: Lab) -> None:
    pair = Pair(lab, is_known=True)
    path = lab.folder / "cli.conf"
    pair.cli.stop()
    path.write_text(path.read_text().replace("AllowedIPs = 10.9.0.0/24", "AllowedIPs = 0.0.0.0/0"))
    full = pair.a.vpntun("up", path)
    full.wait_for(STARTED, SECONDS)
    pair.lab.ping(pair.a, THERE, SECONDS)
    mark = pair.show_cli("fwmark")
    assert "Operation not supported" in pair.set_cli("fwmark", "7")
    assert pair.set_cli("fwmark", "0") == ""
    assert pair.show_cli("fwmark") == mark == "0xca6c"
    path.write_text(path.read_text().replace("[Peer]", "FwMark = 7\n[Peer]") + "PersistentKeepalive = 5\n")
    full.process.send_signal(signal.SIGHUP)
    full.wait_for("peers: 0 added, 0 removed, 1 changed", SECONDS)
    assert "need a restart" in full.log
    assert pair.show_cli("fwmark") == mark
    pair.lab.ping(pair.a, THERE, SECONDS)


@pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="wireguard-go is not installed")
def test_a_name_that_wireguard_go_has_is_left_to_it(lab: Lab) -> None:
    other = lab.a.popen("wireguard-go", "--foreground", "tun11")
    assert until(lambda: wg(lab.a, "show", "tun11", "listen-port").strip().isdigit(), SECONDS), other
    lab.a.run("ip", "link", "set", "tun11", "name", "moved")
    client = lab.a.vpntun("-c", lab.b.four, "-i", "tun11", "-k", lab.key)
    client.wait_for("wg(8) will not find this tunnel: process ", SECONDS)
    client.wait_for(STARTED, SECONDS)
    assert client.stop() == 0
    assert wg(lab.a, "show", "tun11", "listen-port").strip().isdigit()
