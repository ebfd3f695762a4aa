"""`vpntun doctor` asks the other end of a running tunnel for its half: what each fault there looks like from here."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import Any

import pytest

from tests.netns.lab import Lab, Machine, far, start_pair
from tests.netns.wireguard import THEIRS, as_client, make_keys, missing_tool, start_vpntun, start_wireguard


def all_findings(machine: Machine, *arguments: str) -> list[dict[str, Any]]:
    """Run doctor on a machine; return its findings."""
    done = machine.run(sys.executable, "-m", "vpntun", "doctor", "--json", *arguments, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return found


def findings(lab: Lab, *arguments: str) -> list[dict[str, Any]]:
    """Run doctor on the client's machine; return its findings about the other end."""
    return [each for each in all_findings(lab.a, *arguments) if "the other end" in each["about"]]


def verdicts(found: list[dict[str, Any]]) -> dict[str, str]:
    return {each["check"]: each["verdict"] for each in found}


def of_check(found: list[dict[str, Any]], check: str) -> dict[str, Any]:
    return next(each for each in found if each["check"] == check)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_other_end_answers_with_its_half(lab: Lab, transport: str) -> None:
    start_pair(lab, client=["--transport", transport])
    lab.ping(lab.a, far(lab))
    found = findings(lab, "tun11")
    healthy = {"other end", "way back", "AEAD", "offloads", "route to peer", "MTU", "forwarding", "firewall"}
    assert {name: verdicts(found)[name] for name in healthy} == dict.fromkeys(healthy, "ok")
    assert f"it reaches this end at {lab.a.four}:" in of_check(found, "way back")["text"]
    assert f"by {transport.upper()}" in of_check(found, "way back")["text"]
    assert of_check(found, "interpreter")["text"].startswith("its interpreter, Python ")


def test_both_ends_may_ask(lab: Lab) -> None:
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    done = lab.b.run(sys.executable, "-m", "vpntun", "doctor", "tun3", check=False)
    assert "tun3: the other end" in done.stdout
    assert f"it reaches this end at {lab.b.four}:55555 by UDP" in done.stdout


def test_forwarding_that_is_off_at_the_other_end_is_found(lab: Lab) -> None:
    start_pair(lab, client=["--route", "192.168.77.0/24"])
    lab.ping(lab.a, far(lab))
    lab.b.run("sysctl", "-w", "net.ipv4.ip_forward=0")
    finding = of_check(findings(lab, "tun11"), "forwarding")
    assert (finding["verdict"], finding["text"]) == (
        "failed",
        "packets to 192.168.77.0/24 end there: the kernel does not forward IPv4",
    )
    assert finding["remedy"] == "at the other end, 'sysctl -w net.ipv4.ip_forward=1'"
    lab.b.run("sysctl", "-w", "net.ipv4.ip_forward=1")
    assert of_check(findings(lab, "tun11"), "forwarding")["verdict"] == "ok"


def test_a_strict_filter_at_the_other_end_is_found(lab: Lab) -> None:
    start_pair(lab)
    lab.ping(lab.a, far(lab))
    lab.b.run("sysctl", "-w", "net.ipv4.conf.tun3.rp_filter=1")
    assert "strict" in of_check(findings(lab, "tun11"), "rp_filter")["text"]


def failed_with_a_dead_link(found: list[dict[str, Any]]) -> set[str]:
    """Return the failed checks of a dead link. The other end, which cannot be heard then, must be none of them."""
    silent = of_check(found, "other end")
    assert (silent["verdict"], silent["text"]) == ("skipped", "not checked: the link carries no data")
    return {each["check"] for each in found if each["verdict"] == "failed" and each["about"]}


def test_a_suspended_other_end_is_a_fault_of_the_link_alone(lab: Lab) -> None:
    server, _ = start_pair(lab, client=["--transport", "udp"])
    lab.ping(lab.a, far(lab))
    server.process.send_signal(signal.SIGSTOP)
    try:
        assert failed_with_a_dead_link(all_findings(lab.a, "tun11")) == {"link"}
    finally:
        server.process.send_signal(signal.SIGCONT)


def test_udp_that_a_server_drops_is_a_fault_of_the_link_alone(lab: Lab) -> None:
    start_pair(lab, client=["--transport", "udp"])
    lab.ping(lab.a, far(lab))
    lab.block("udp")
    began = time.monotonic()
    assert failed_with_a_dead_link(all_findings(lab.b, "tun3")) == {"link"}
    assert time.monotonic() - began < 10, "the limit of an answer was waited for"


def test_an_end_that_gave_up_root_tells_its_half(lab: Lab) -> None:
    """Even if its interpreter is in a folder of root's, of which nothing more can be imported then."""
    start_pair(lab, server=["--user", "nobody"])
    lab.ping(lab.a, far(lab))
    found = findings(lab, "tun11")
    assert verdicts(found).items() >= {"AEAD": "ok", "route to peer": "ok", "firewall": "skipped"}.items(), found


@pytest.mark.skipif(missing_tool() is not None, reason=str(missing_tool()))
def test_a_plain_wireguard_cannot_be_asked(lab: Lab) -> None:
    keys = make_keys(lab)
    start_wireguard(lab, keys)
    start_vpntun(lab, keys, *as_client(lab))
    lab.ping(lab.a, THEIRS)
    (finding,) = findings(lab)
    assert finding["text"] == "not checked: it is a plain WireGuard, which answers no questions"
