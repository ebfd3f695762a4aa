"""Verdicts on calls: what each outcome means, and whether it matters beside the others.

A carrier that does not get through is a fault if nothing else does, and a warning otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vpntun.doctor.finding import Finding, failed, ok, warning
from vpntun.doctor.reach.call import Called, Outcome

SMALLEST_MTU = 1228
"""IPv4 packets of this length carry the datagrams of 1,200 bytes that records begin with."""


def judge_calls(port: int, calls: Sequence[tuple[str, Called]]) -> Iterator[Finding]:
    """Yield a finding for each call, given with the address that was called."""
    outcomes = {called.outcome for _, called in calls}
    for address, called in calls:
        check, where = called.carrier.upper(), f"{address} port {port}"
        if called.outcome == "answered":
            yield ok(check, f"{where} answers a handshake in {1000 * called.seconds:.0f} ms: the keys fit")
            continue
        text, remedy = explain(called, where, port, outcomes)
        if "answered" in outcomes:
            yield warning(check, f"{text}, but another way works", remedy)
        else:
            yield failed(check, text, remedy)


def explain(called: Called, where: str, port: int, outcomes: set[Outcome]) -> tuple[str, str]:
    """Return what an outcome means and what to do, in view of the outcomes of all calls."""
    carrier = called.carrier
    name = carrier.upper()
    if called.outcome == "refused":
        return (
            f"{where} refuses {name}: nothing listens there, or a firewall rejects it",
            f"start vpntun at the other end, or give its port with -p; have its firewall accept {carrier} port {port}",
        )
    if called.outcome == "unreachable":
        return (
            f"{where} cannot be reached over {name}: {called.why}",
            "connect this machine to a network that leads there; 'ip route get ADDRESS' shows the kernel's answer",
        )
    if called.outcome == "forbidden":
        return (
            f"this machine's packet filter lets no {name} out to {where}",
            f"have this machine's firewall let {carrier} port {port} out",
        )
    if called.outcome == "loaded":
        return (f"{where} is under load: it answers with cookies alone", "try again later")
    if called.outcome == "foreign":
        return (
            f"something that is no vpntun answers at {where} over {name}",
            "give the port of vpntun with -p, and the keys of that machine",
        )
    if called.outcome == "open":
        return (
            f"{where} takes TCP connections but answers no handshake: the keys differ, or another program listens",
            "compare the key files of both ends ('sha256sum FILE'), and give vpntun's port with -p",
        )
    return _silent(name, carrier, where, port, outcomes)


def _silent(name: str, carrier: str, where: str, port: int, outcomes: set[Outcome]) -> tuple[str, str]:
    if "open" in outcomes:
        return (
            f"{where} answers no handshake over {name}; since it takes TCP connections, the keys may differ",
            "compare the key files of both ends ('sha256sum FILE')",
        )
    if "answered" in outcomes:
        return (
            f"{where} does not answer over {name}: a firewall on the way drops it",
            f"have the firewalls on the way, and at the other end, let {carrier} port {port} pass",
        )
    why = "the machine is off, a firewall drops it, no vpntun listens, or the keys differ: strangers get no answer"
    return (
        f"{where} does not answer over {name}: {why}",
        f"see that vpntun runs there, have firewalls let {carrier} port {port} pass, and compare the key files",
    )


def judge_path(route: int, path: int | None, *, probed: bool) -> Finding:
    """Return the finding about the path's MTU. `route`: the MTU of this machine's route to the peer."""
    if path is None:
        return warning(
            "path MTU",
            f"no datagram of 576 to {route} bytes came back",
            "the other end may be an older program: compare 'vpntun --version' at both",
        )
    how = "come back" if probed else "pass, as far as routers tell"
    if path >= route:
        return ok("path MTU", f"packets of {path} bytes {how}, which is all that this machine sends")
    text = f"packets of {path} bytes {how}, and longer ones do not, although this machine's route takes {route}"
    if path < SMALLEST_MTU:
        return warning("path MTU", f"{text}: records are fragmented", "use another path, or 'Transport = tcp'")
    return warning(
        "path MTU",
        text,
        f"between two vpntuns nothing: they cut what they send. For a plain WireGuard set --mtu to {path - 80} or less",
    )
