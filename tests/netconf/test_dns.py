"""Name servers: resolvconf is called as wg-quick calls it; if it is missing, fails or hangs, there is a notice."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.machine import logged
from vpntun.netconf import dns
from vpntun.netconf.dns import HostDns, entry_for, lines_of, server_of
from vpntun.netconf.journal import Journal, entries_of, path_of
from vpntun.runtime import child
from vpntun.runtime.loop import Loop

Calls = Callable[[], list[str]]
DEBIAN = """# interface-order(5)
lo.inet6
lo.@(dnsmasq|pdnsd)
lo
vpn*
tap*
"""


class Dns(HostDns):
    """Name servers of tun3, on a loop of their own."""

    def __init__(self, folder: Path, *servers: str) -> None:
        self.loop = Loop()
        super().__init__("tun3", servers, Journal("tun3", folder), self.loop)

    def set(self) -> None:
        """Set them, and serve the loop until they are set."""
        ends: list[bool] = []
        self.apply()
        self.when_set(lambda: ends.append(True))
        self.loop.serve(lambda: bool(ends), 5.0)
        assert ends == [True]


@pytest.fixture
def resolvconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Calls]:
    """Puts a resolvconf into the only folder on the path; returns the calls to it."""
    folder, told = tmp_path / "bin", tmp_path / "told"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(child, "SYSTEM_PATH", "")
    monkeypatch.setattr(dns, "DEBIANS_ORDER", tmp_path / "none")
    monkeypatch.setenv("SECRET", "not for others")

    def install(ending: str) -> Calls:
        script = folder / "resolvconf"
        script.write_text(
            f'#!/bin/sh\nexec >>{told}\necho "resolvconf $*"\nwhile read -r line; do echo "$line"; done\n'
            f'echo "secret: $SECRET"\n{ending}\n'
        )
        script.chmod(0o755)
        return lambda: told.read_text().replace("secret: \n", "").splitlines()

    return install


def test_servers_and_domains_are_set_and_taken_back(tmp_path: Path, resolvconf: Callable[[str], Calls]) -> None:
    calls = resolvconf("")
    servers = Dns(tmp_path, "192.0.2.1", "corp.example.org", "2001:db8::1", "example.org")
    servers.set()
    assert calls() == [
        "resolvconf -a tun3 -m 0 -x",
        "nameserver 192.0.2.1",
        "nameserver 2001:db8::1",
        "search corp.example.org example.org",
    ]
    assert [entry["kind"] for entry in entries_of(path_of("tun3", tmp_path))] == ["NameServers"]
    servers.undo()
    assert calls()[4:] == ["resolvconf -d tun3 -f"]
    servers.undo()
    assert len(calls()) == 5
    assert not path_of("tun3", tmp_path).exists()


def test_without_name_servers_nothing_is_called(tmp_path: Path, resolvconf: Callable[[str], Calls]) -> None:
    resolvconf("")
    servers = Dns(tmp_path)
    servers.set()
    servers.undo()
    assert not (tmp_path / "told").exists()


@pytest.mark.usefixtures("resolvconf")
def test_a_missing_resolvconf_is_one_notice(tmp_path: Path) -> None:
    servers = Dns(tmp_path, "192.0.2.1")
    with logged() as lines:
        servers.set()
        servers.undo()
    assert len(lines) == 1
    assert "no resolvconf" in lines[0]


@pytest.mark.parametrize(("ending", "said"), [("exit 3", "status 3"), ("sleep 60 & wait", "did not end")])
def test_a_resolvconf_that_fails_is_a_notice_and_is_still_called_to_take_back(
    tmp_path: Path,
    resolvconf: Callable[[str], Calls],
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    said: str,
) -> None:
    monkeypatch.setattr(dns, "SECONDS", 0.3)
    calls = resolvconf(f'PATH=/usr/bin:/bin\n[ "$1" = -d ] || {{ {ending}; }}')
    servers = Dns(tmp_path, "192.0.2.1")
    with logged() as lines:
        servers.set()
        servers.undo()
    assert len(lines) == 1
    assert said in lines[0]
    assert calls()[-1] == "resolvconf -d tun3 -f"


def test_the_loop_runs_on_while_resolvconf_does_and_the_end_waits_for_it(
    tmp_path: Path, resolvconf: Callable[[str], Calls]
) -> None:
    calls = resolvconf('PATH=/usr/bin:/bin\n[ "$1" = -d ] || sleep 0.5\necho "done"')
    servers = Dns(tmp_path, "192.0.2.1")
    ends: list[bool] = []
    began = time.monotonic()
    servers.apply()
    servers.when_set(lambda: ends.append(True))
    assert time.monotonic() - began < 0.4
    assert ends == []
    servers.undo()
    assert calls() == ["resolvconf -a tun3 -m 0 -x", "nameserver 192.0.2.1", "done", "resolvconf -d tun3 -f", "done"]
    assert ends == []


def test_a_port_goes_to_resolvconf_with_a_notice_about_who_minds_it(
    tmp_path: Path, resolvconf: Callable[[str], Calls]
) -> None:
    resolvconf("")
    servers = Dns(tmp_path, "10.9.0.1:5353", "[fd09::1]:5353", "192.0.2.1", "lan")
    with logged() as lines:
        servers.set()
        servers.undo()
    assert lines == [
        "few resolvers ask name servers at other ports than 53 (systemd-resolved does): 10.9.0.1:5353, [fd09::1]:5353"
    ]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.9.0.1", "10.9.0.1"),
        ("fd09::1", "fd09::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("10.9.0.1:5353", "10.9.0.1"),
        ("[fd09::1]:5353", "fd09::1"),
        ("example.org", None),
        ("~.", None),
    ],
)
def test_a_name_server_is_told_from_a_domain(text: str, address: str | None) -> None:
    assert server_of(text) == (address and ip_address(address))
    assert lines_of([text]) == f"{'search' if address is None else 'nameserver'} {text}\n"


def test_domains_may_be_set_without_servers() -> None:
    assert lines_of(["example.org"]) == "search example.org\n"
    assert lines_of([]) == ""


def test_debians_entries_begin_with_the_first_prefix_of_its_order(tmp_path: Path) -> None:
    order = tmp_path / "interface-order"
    assert entry_for("tun3", order) == "tun3"
    order.write_text(DEBIAN)
    assert entry_for("tun3", order) == "vpn.tun3"
    order.write_text("lo\n")
    assert entry_for("tun3", order) == "tun3"
