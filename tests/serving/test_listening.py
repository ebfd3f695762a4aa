"""The sockets that listen in a network namespace are its own, whoever can connect to them."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.netconf.kernel import in_own_network
from vpntun.serving.listening import listens_here, names_listening_here


def test_a_socket_listens_in_the_namespace_where_it_was_made(path: Path) -> None:
    assert listens_here(path)
    assert not listens_here(path.with_name("name.sock"))
    by_another_way = path.parent.parent / "link"
    by_another_way.symlink_to(path.parent)
    assert listens_here(by_another_way / path.name)


@in_own_network
def test_a_socket_of_another_namespace_does_not_listen_here(path: Path) -> None:
    assert not listens_here(path)
    with socket.socket(socket.AF_UNIX) as connected:
        connected.connect(str(path))  # it answers all the same


def test_the_names_in_a_folder_are_listed_whoever_may_enter_it(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path.with_name("bound.sock")))
        assert names_listening_here(path.parent) == [path.name]
    assert names_listening_here(path.parent.parent) == []
    assert names_listening_here(path.parent, path.with_name("missing")) == []


def test_a_connection_and_a_socket_that_does_not_listen_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "bound.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        assert not listens_here(path)


def test_without_a_list_a_socket_counts_as_being_here(tmp_path: Path) -> None:
    assert listens_here(tmp_path / "any.sock", tmp_path / "missing")
