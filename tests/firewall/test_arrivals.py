"""What is marked and guarded; tests/netns/test_firewalls.py tests that filters let it through."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.machine import logged
from tests.netconf.kernel import in_own_network
from vpntun.firewall.arrivals import Arrivals


def ruleset() -> str:
    return subprocess.run(["nft", "-y", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


MARKED = """
    chain first {
        type filter hook prerouting priority -310; policy accept;
        iifname != "tun3" ip daddr 10.9.0.2 fib saddr type != local drop
        iifname != "tun3" ip6 daddr fd09::2 fib saddr type != local drop
        iifname != "tun3" socket mark 0x0000ca6c meta mark set 0x0000ca6c
        iifname != "tun3" tcp dport 55555 fib daddr type local meta mark set 0x0000ca6c
        iifname != "tun3" icmpv6 type 133-137 ip6 hoplimit 255 meta mark set 0x0000ca6c
    }

    chain later {
        type filter hook prerouting priority -145; policy accept;
        meta mark != 0x0000ca6c iifname != "tun3" socket mark 0x0000ca6c meta mark set 0x0000ca6c
    }
"""


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
@in_own_network
def test_the_tables_mark_what_comes_for_the_tunnels_sockets_and_are_gone_when_closed() -> None:
    arrivals = Arrivals("tun3", 55555)
    assert arrivals.mark(0xCA6C, ["10.9.0.2", "fd09::2"])
    assert MARKED.strip() in ruleset().expandtabs(4)
    assert "table arp vpntun-tun3" in ruleset()
    assert arrivals.mark(0xCA6C, [])
    assert "drop" not in ruleset()
    arrivals.close()
    assert ruleset() == ""


@in_own_network
def test_where_the_tables_cannot_be_made_one_notice_says_what_that_means() -> None:
    first, second = Arrivals("tun3"), Arrivals("tun3")
    assert first.mark(7, [])
    with logged() as lines:
        assert not second.mark(7, [])
        assert not second.mark(7, [])
    [line] = lines
    assert "a firewall whose reverse path filter minds marks" in line


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
@in_own_network
def test_tables_that_cannot_be_updated_stay_and_each_failure_after_a_success_is_said() -> None:
    arrivals = Arrivals("tun3")
    too_many = [f"10.{number >> 8}.{number & 255}.1" for number in range(3000)]
    for address in ("10.9.0.2", "10.9.0.3"):
        assert arrivals.mark(7, [address])
        before = ruleset()
        with logged() as lines:
            assert not arrivals.mark(7, too_many)
            assert not arrivals.mark(7, too_many)
        assert ruleset() == before
        assert f"ip daddr {address}" in before
        [line] = lines
        assert "cannot be updated" in line
    arrivals.close()
    assert ruleset() == ""


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
@in_own_network
def test_the_tables_follow_the_port_where_the_peers_connect() -> None:
    arrivals = Arrivals("tun3", 55555)
    arrivals.change_port(4500)
    assert ruleset() == ""
    arrivals.mark(0xCA6C, ["10.9.0.2"])
    assert "dport 4500" in ruleset()
    arrivals.change_port(4501)
    assert "dport 4501" in ruleset()
    assert "dport 4500" not in ruleset()
    assert "10.9.0.2" in ruleset()
    arrivals.change_port(None)
    assert "dport" not in ruleset()
    arrivals.close()
