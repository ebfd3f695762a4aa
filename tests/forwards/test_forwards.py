"""Table of forwards: what is added, removed and reloaded, and what users of a forward notice of it."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.forwards.sockets import Echo, Loopback, client_of, free_port, has_ended, receive, short_folder, was_reset
from tests.machine import HandLoop
from vpntun.config.forwards import Forward, ServiceName, parse_forward
from vpntun.errors import ConfigurationError, ForwardExists, NoSuchForward, PortInUse
from vpntun.forwards.connecting import OnConnected, OnFailed
from vpntun.forwards.forwards import Forwards, Visit
from vpntun.forwards.ways import Way


@pytest.fixture
def echo(loop: HandLoop, made: ExitStack) -> Echo:
    return opened(loop, made, b"")


def opened(loop: HandLoop, made: ExitStack, name: bytes) -> Echo:
    new = Echo(loop, name)
    made.callback(new.close)
    return new


def table(loop: HandLoop, made: ExitStack, visit: Visit | None = None) -> Forwards:
    side = Loopback(loop)
    new = Forwards(loop, {"here": Way(side, side), "peer": Way(side, side)}, visit=visit)
    made.callback(new.close)
    new.begin()
    return new


@pytest.fixture
def forwards(loop: HandLoop, made: ExitStack) -> Forwards:
    return table(loop, made)


def to(echo: Echo, port: int | None = None) -> Forward:
    return Forward("tcp", ("127.0.0.1", port or free_port()), echo.place)


def use(loop: HandLoop, made: ExitStack, forward: Forward) -> socket.socket:
    """A client that has had an answer through the forward."""
    listen = forward.listen
    client = made.enter_context(client_of(str(listen) if isinstance(listen, Path) else listen))
    loop.settle(0.01)
    client.send(b"ping")
    assert receive(loop, client, 4) == b"ping"
    return client


def is_refused(forward: Forward) -> bool:
    assert isinstance(forward.listen, tuple)
    with socket.socket() as probe:
        return probe.connect_ex(forward.listen) == errno.ECONNREFUSED


def test_a_forward_is_used_counted_and_removed(loop: HandLoop, made: ExitStack, forwards: Forwards, echo: Echo) -> None:
    forward = to(echo)
    forwards.expose(forward)
    client = use(loop, made, forward)
    (status,) = forwards.status()
    assert status.pop("since") >= 0
    assert status == {
        "protocol": "tcp",
        "from": "here",
        "listen": f"127.0.0.1:{forward.listen[1]}",  # type: ignore[index]
        "target": f"127.0.0.1:{echo.place[1]}",
        "of_file": False,
        "connections": 1,
        "connections_total": 1,
        "connections_refused": 0,
        "connections_failed": 0,
        "sent_bytes": 4,
        "received_bytes": 4,
        "last_failure": None,
    }
    forwards.unexpose("tcp", forward.listen)
    assert forwards.status() == []
    assert is_refused(forward)
    client.send(b"still there")
    assert receive(loop, client, 11) == b"still there"


def test_whoever_connects_before_the_beginning_is_served_then(loop: HandLoop, made: ExitStack, echo: Echo) -> None:
    side = Loopback(loop)
    forwards = Forwards(loop, {"here": Way(side, side)})
    made.callback(forwards.close)
    forward = to(echo)
    forwards.expose(forward)
    client = made.enter_context(client_of(forward.listen))  # type: ignore[arg-type]
    loop.settle(0.02)
    client.send(b"early")
    loop.settle(0.02)
    assert forwards.status()[0]["connections_total"] == 0
    forwards.begin()
    assert receive(loop, client, 5) == b"early"


def test_two_hundred_forwards_are_used_at_once(loop: HandLoop, made: ExitStack, forwards: Forwards, echo: Echo) -> None:
    folder = made.enter_context(short_folder())
    paths = [folder / str(number) for number in range(200)]
    for path in paths:
        forwards.expose(Forward("tcp", path, echo.place))
    clients = [made.enter_context(client_of(str(path))) for path in paths]
    for number, client in enumerate(clients):
        client.send(b"%03d" % number)
    for number, client in enumerate(clients):
        assert receive(loop, client, 3) == b"%03d" % number
    assert {each["connections"] for each in forwards.status()} == {1}


def test_counters_outlast_their_connections(loop: HandLoop, made: ExitStack, forwards: Forwards, echo: Echo) -> None:
    forward = to(echo)
    forwards.expose(forward)
    for _ in range(2):
        client = use(loop, made, forward)
        client.shutdown(socket.SHUT_WR)
        loop.until(partial(has_ended, client))
    (status,) = forwards.status()
    assert [status[key] for key in ("connections", "connections_total", "sent_bytes")] == [0, 2, 8]


def test_the_end_of_the_tunnel_resets_what_is_being_passed_on(
    loop: HandLoop, made: ExitStack, forwards: Forwards, echo: Echo
) -> None:
    forward = to(echo)
    forwards.expose(forward)
    client = use(loop, made, forward)
    forwards.close()
    loop.until(lambda: was_reset(client))


def test_a_place_is_forwarded_once(forwards: Forwards, echo: Echo) -> None:
    port = free_port()
    forward, of_all = to(echo, port), Forward("tcp", ("", port), echo.place)
    forwards.expose(forward)
    with pytest.raises(ForwardExists, match=r"is forwarded already, to 127\.0\.0\.1:\d+: unexpose it first"):
        forwards.expose(forward)
    for other in (replace(forward, origin="peer"), of_all):
        with pytest.raises(PortInUse) as refused:
            forwards.expose(other)
        assert f"is in use by the forward {forward}: unexpose that one, or choose another" in str(refused.value)
    forwards.unexpose("tcp", forward.listen)
    with pytest.raises(PortInUse, match="is in use by the forward"):
        forwards.reconcile([forward, of_all])


def test_what_is_not_forwarded_cannot_be_removed(forwards: Forwards) -> None:
    with pytest.raises(NoSuchForward) as refused:
        forwards.unexpose("udp", ("", 53), "peer")
    assert "no forward listens on udp :53 from peer: 'vpntun forwards' lists them; give unexpose the same" in str(
        refused.value
    )


def test_the_inside_of_a_run_is_refused_where_there_is_none(forwards: Forwards, echo: Echo) -> None:
    with pytest.raises(ConfigurationError, match="only 'vpntun run' has an inside"):
        forwards.expose(Forward("tcp", ("", free_port()), echo.place, "inside"))


def test_a_target_that_refuses_resets_the_client_and_is_named(
    loop: HandLoop, made: ExitStack, forwards: Forwards
) -> None:
    forward = Forward("tcp", ("127.0.0.1", free_port()), ("127.0.0.1", free_port()))
    forwards.expose(forward)
    client = made.enter_context(client_of(forward.listen))  # type: ignore[arg-type]
    loop.until(lambda: was_reset(client))
    (status,) = forwards.status()
    assert (status["connections"], status["connections_failed"]) == (0, 1)
    assert status["last_failure"] == "Connection refused"


def test_a_reload_adds_removes_and_changes_forwards_of_the_file_alone(
    loop: HandLoop, made: ExitStack, forwards: Forwards, echo: Echo
) -> None:
    other = opened(loop, made, b"other")
    added, stays, changes, goes = (to(echo) for _ in range(4))
    forwards.expose(added)
    forwards.reconcile([stays, changes, goes])
    client = use(loop, made, changes)
    changed = Forward("tcp", changes.listen, other.place)
    forwards.reconcile([stays, changed])
    assert {(each["listen"], each["of_file"]) for each in forwards.status()} == {
        (f"127.0.0.1:{added.listen[1]}", False),  # type: ignore[index]
        (f"127.0.0.1:{stays.listen[1]}", True),  # type: ignore[index]
        (f"127.0.0.1:{changes.listen[1]}", True),  # type: ignore[index]
    }
    assert is_refused(goes)
    client.send(b"goes on")
    assert receive(loop, client, 7) == b"goes on"
    later = made.enter_context(client_of(changed.listen))  # type: ignore[arg-type]
    assert receive(loop, later, 5) == b"other"


def test_a_reload_that_cannot_open_a_forward_changes_nothing(
    loop: HandLoop, made: ExitStack, forwards: Forwards, echo: Echo
) -> None:
    stays, fresh, taken = to(echo), to(echo), to(echo)
    made.enter_context(socket.create_server(taken.listen))  # type: ignore[arg-type]
    forwards.reconcile([stays])
    with pytest.raises(PortInUse):
        forwards.reconcile([fresh, taken])
    use(loop, made, stays)
    assert is_refused(fresh)
    assert len(forwards.status()) == 1


def test_a_reload_may_listen_at_another_address_of_the_same_port(
    loop: HandLoop, made: ExitStack, forwards: Forwards, echo: Echo
) -> None:
    port = free_port()
    everywhere, there = Forward("tcp", ("0.0.0.0", port), echo.place), to(echo, port)
    taken = to(echo)
    made.enter_context(socket.create_server(taken.listen))  # type: ignore[arg-type]
    forwards.reconcile([everywhere])
    with pytest.raises(PortInUse):
        forwards.reconcile([there, taken])
    assert [each["listen"] for each in forwards.status()] == [f"0.0.0.0:{port}"]
    forwards.reconcile([there])
    assert [each["listen"] for each in forwards.status()] == [f"127.0.0.1:{port}"]
    use(loop, made, there)


def test_a_forward_of_a_request_is_not_changed_by_the_file(forwards: Forwards, echo: Echo) -> None:
    forward = to(echo)
    forwards.expose(forward)
    with pytest.raises(ForwardExists):
        forwards.reconcile([Forward("tcp", forward.listen, ("127.0.0.1", 1))])
    forwards.reconcile([forward])
    assert [each["of_file"] for each in forwards.status()] == [True]
    forwards.unexpose("tcp", forward.listen)
    forwards.reconcile([forward])
    assert len(forwards.status()) == 1


def test_either_end_may_be_a_unix_socket(loop: HandLoop, made: ExitStack, forwards: Forwards, echo: Echo) -> None:
    with_folder = made.enter_context(short_folder())
    first = parse_forward(f"tcp unix:{with_folder}/a 127.0.0.1:{echo.place[1]}")
    second = parse_forward(f"tcp unix:{with_folder}/b unix:{with_folder}/a")
    forwards.expose(first)
    forwards.expose(second)
    use(loop, made, second)
    assert (with_folder / "b").stat().st_mode & 0o777 == 0o600
    forwards.unexpose("tcp", second.listen)
    assert not (with_folder / "b").exists()


class Visits:
    """Services of peers, as a test provides them."""

    def __init__(self) -> None:
        self.asked: list[tuple[ServiceName, OnConnected, OnFailed]] = []

    def __call__(self, service: ServiceName, on_connected: OnConnected, on_failed: OnFailed) -> None:
        self.asked.append((service, on_connected, on_failed))


def test_a_service_of_a_peer_is_visited_for_each_connection(loop: HandLoop, made: ExitStack, echo: Echo) -> None:
    visits = Visits()
    forwards = table(loop, made, visits)
    forward = Forward("tcp", ("127.0.0.1", free_port()), ServiceName("ssh", "desk"))
    forwards.expose(forward)
    first = made.enter_context(client_of(forward.listen))  # type: ignore[arg-type]
    loop.until(lambda: visits.asked)
    service, on_connected, _ = visits.asked.pop()
    assert str(service) == "ssh@desk"
    far = client_of(echo.place)
    loop.settle()
    on_connected(far)
    first.send(b"ping")
    assert receive(loop, first, 4) == b"ping"
    second = made.enter_context(client_of(forward.listen))  # type: ignore[arg-type]
    loop.until(lambda: visits.asked)
    visits.asked.pop()[2](OSError("not offered"))
    loop.until(lambda: was_reset(second))
    assert forwards.status()[0]["last_failure"] == "not offered"


def test_a_visit_that_ends_after_its_forward_changes_nothing(loop: HandLoop, made: ExitStack, echo: Echo) -> None:
    visits = Visits()
    forwards = table(loop, made, visits)
    forward = Forward("tcp", ("127.0.0.1", free_port()), ServiceName("ssh", "desk"))
    forwards.expose(forward)
    clients = [made.enter_context(client_of(forward.listen)) for _ in range(2)]  # type: ignore[arg-type]
    loop.until(lambda: len(visits.asked) == 2)
    forwards.unexpose("tcp", forward.listen)
    for client in clients:
        loop.until(partial(was_reset, client))
    far = client_of(echo.place)
    visits.asked[0][1](far)
    visits.asked[1][2](OSError("too late"))
    assert far.fileno() == -1


def test_a_service_is_refused_where_none_can_be_reached(forwards: Forwards) -> None:
    with pytest.raises(ConfigurationError, match="ssh@desk: this tunnel reaches no services by name"):
        forwards.expose(Forward("tcp", ("", free_port()), ServiceName("ssh", "desk")))
