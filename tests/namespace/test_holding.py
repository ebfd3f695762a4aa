"""The holder process itself, forked for real, which takes root or user namespaces for everybody."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from namespaces import until
from tests.machine import HandLoop
from vpntun.errors import ConfigurationError, DeviceError, PrivilegeError
from vpntun.namespace.holder import Holder
from vpntun.namespace.side import NamespaceSide


@contextmanager
def started(loop: HandLoop) -> Iterator[Holder]:
    try:
        holder = Holder.start()
    except PrivilegeError as refused:
        pytest.skip(str(refused))
    holder.attach(loop, lambda: None)
    yield holder
    holder.close()
    os.waitpid(holder.process, 0)


@pytest.fixture
def holder(loop: HandLoop) -> Iterator[Holder]:
    with started(loop) as holder:
        yield holder


@pytest.fixture
def side(holder: Holder) -> NamespaceSide:
    return NamespaceSide(holder)


def in_network_of(holder: Holder, act: Any) -> Any:
    """Call a function in a thread that enters the holder's network namespace."""
    from vpntun.namespace import kernel

    results: list[Any] = []

    def run() -> None:
        kernel.enter(holder.namespaces["net"], kernel.CLONE_NEWNET)
        results.append(act())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


def test_the_namespaces_are_others_than_this_processs(holder: Holder) -> None:
    for kind, descriptor in holder.namespaces.items():
        own, its = Path(f"/proc/self/ns/{kind}").stat(), os.fstat(descriptor)
        assert (own.st_dev, own.st_ino) != (its.st_dev, its.st_ino)


def held_by(holder: Holder) -> list[str]:
    """The kinds of the descriptors that the process has now."""
    held = []
    for each in Path(f"/proc/{holder.process}/fd").iterdir():
        with suppress(FileNotFoundError):
            held.append(os.readlink(each).partition(":")[0])
    return sorted(held)


def test_the_process_has_its_own_session_and_no_descriptor_but_its_own(holder: Holder) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can look into a process that is not dumpable")
    assert os.getsid(holder.process) == holder.process
    own = ["/dev/null"] * 3 + ["anon_inode", "socket", "socket", "socket"]
    until(lambda: held_by(holder) == own, 10)  # it closes what it has sent
    assert held_by(holder) == own


def test_sockets_of_the_side_reach_what_listens_inside_and_nothing_outside(holder: Holder, side: NamespaceSide) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as outside:
        port = outside.getsockname()[1]
        with side.open(socket.AF_INET, socket.SOCK_STREAM) as made:
            made.setblocking(True)
            with pytest.raises(ConnectionRefusedError):
                made.connect(("127.0.0.1", port))
    four, six = side.listen(socket.SOCK_STREAM, "", 7)
    with four, six, side.open(socket.AF_INET, socket.SOCK_STREAM) as made:
        assert not made.getblocking()
        made.setblocking(True)
        made.connect(("127.0.0.1", 7))
        with pytest.raises(OSError, match="Address already in use"):
            side.listen(socket.SOCK_STREAM, "127.0.0.1", 7)
    (bound,) = side.listen(socket.SOCK_DGRAM, "::1", 53)
    with bound:
        assert bound.getsockname()[:2] == ("::1", 53)
    with pytest.raises(OSError, match="Cannot assign requested address"):
        side.listen(socket.SOCK_STREAM, "192.0.2.1", 7)


def test_without_ipv6_a_port_alone_is_that_of_ipv4(loop: HandLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    class Socket(socket.socket):
        def __init__(self, family: int = -1, kind: int = -1, protocol: int = -1, fileno: int | None = None) -> None:
            if family == socket.AF_INET6 and fileno is None:
                raise OSError(errno.EAFNOSUPPORT, "as if IPv6 were off")
            super().__init__(family, kind, protocol, fileno)

    monkeypatch.setattr(socket, "socket", Socket)
    with started(loop) as holder:
        (four,) = NamespaceSide(holder).listen(socket.SOCK_STREAM, "", 7)
        with four:
            assert four.getsockname() == ("127.0.0.1", 7)


def test_signals_to_all_processes_of_a_unit_do_not_end_it_before_its_parent(
    holder: Holder, side: NamespaceSide
) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(holder.process, number)
    side.open(socket.AF_INET, socket.SOCK_STREAM).close()


def test_a_parent_without_room_for_a_descriptor_gets_an_error(side: NamespaceSide) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            side.open(socket.AF_INET, socket.SOCK_STREAM)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    side.open(socket.AF_INET, socket.SOCK_STREAM).close()


def test_look_ups_answer_in_the_loop(loop: HandLoop, side: NamespaceSide) -> None:
    answers: list[tuple[object, Exception | None]] = []
    side.look_up("127.0.0.1", 80, lambda found, error: answers.append((found, error)))
    loop.until(lambda: answers)
    assert answers == [([(socket.AF_INET, ("127.0.0.1", 80))], None)]
    side.look_up("no such name", 80, lambda found, error: answers.append((found, error)))
    loop.until(lambda: len(answers) == 2)
    assert answers[1][0] == []
    assert isinstance(answers[1][1], OSError)


def test_a_device_is_set_up_inside_and_vanishes_with_its_descriptor(holder: Holder) -> None:
    try:
        made, (descriptor,) = holder.ask(
            "set_up", 30.0, interface="office", mtu=1400, addresses=["10.9.0.2/24"], dns=[]
        )
    except (DeviceError, PrivilegeError) as refused:
        pytest.skip(str(refused))
    assert made["addresses"] == ["10.9.0.2/24"]
    holder.ask("change_routes", 30.0, add=["0.0.0.0/0", "10.7.0.0/16"], remove=[])
    holder.ask("change_routes", 30.0, add=[], remove=["10.7.0.0/16", "10.8.0.0/16"])
    with pytest.raises(DeviceError, match="has a device office already"):
        holder.ask("set_up", 30.0, interface="office", mtu=1400, addresses=[], dns=[])
    assert [name for _, name in in_network_of(holder, socket.if_nameindex)] == ["lo", "office"]
    os.close(descriptor)
    assert [name for _, name in in_network_of(holder, socket.if_nameindex)] == ["lo"]


def test_a_named_namespace_must_be_there() -> None:
    for name in ("no-such-namespace", "../run", ""):
        with pytest.raises((ConfigurationError, PrivilegeError)):
            Holder.start(name)


def test_a_request_that_nobody_expects_is_answered_by_an_error(holder: Holder) -> None:
    with pytest.raises(Exception, match="internal error"):
        holder.ask("listen", host="not an address", kind=1, port=7)
