"""Tests mirror files: vpntun/ROOM/x.py is tested in tests/ROOM/test_x.py, or a list here says where, and why."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAM = HERE.parent / "vpntun"

ELSEWHERE = {
    "errors.py": "cli/test_command.py",  # what an error says is its raiser's; here are the exit statuses
    "__main__.py": "cli/test_command.py",  # run as a program
    "daemon.py": "netns/test_two_commands.py",  # puts all rooms together, and needs a device and a peer
    "cli/devices.py": "netns/test_persistent.py",  # needs a network of its own, and a second user
    "control/opening.py": "netns/test_wg_tool.py",  # needs the machine's own folders
    "control/client.py": "cli/test_control.py",  # asked by the commands, over real sockets
    "services/listing.py": "services/test_services.py",  # needs peers that answer
    "services/offering.py": "services/test_services.py",  # needs somebody to visit it
    "services/visiting.py": "services/test_services.py",  # needs somebody to visit
    "serving/clients.py": "serving/test_unix_server.py",  # a connection needs a server
    "datapath/receiving/delivery.py": "datapath/routing/test_delivery.py",  # needs a kind of packets
    "datapath/sending/device_reader.py": "datapath/routing/test_outbound.py",
    "datapath/sending/distributor.py": "datapath/routing/test_relay.py",  # needs somebody to forward
    "link/client_link.py": "datapath/test_two_ends.py",  # needs somebody to call
    "link/sending_link.py": "link/test_link.py",  # a link's two halves work together
    "namespace/device.py": "namespace/test_network.py",
    "namespace/kernel.py": "namespace/test_holding.py",  # what is made shows what it does
    "namespace/making.py": "namespace/test_holding.py",
    "namespace/side.py": "namespace/test_holding.py",
    "process/machine.py": "netns/test_two_commands.py",  # what the daemon is surrounded by
    "namespace/file_watch.py": "namespace/test_files.py",  # needs mounts that are lost
    "namespace/mounts.py": "namespace/test_files.py",  # what is mounted shows what it does
    "watch/cells.py": "watch/test_drawing.py",  # seen in a whole picture alone
    "watch/details.py": "watch/test_drawing.py",
    "watch/table.py": "watch/test_drawing.py",
    "watch/screen.py": "watch/test_program.py",  # needs a terminal
    "watch/signals.py": "watch/test_program.py",  # ends the process
}
NO_BEHAVIOUR = {
    "carriers/base.py",  # protocols, and an owner whose methods do nothing
    "tun/base.py",  # a protocol
    "core/events.py",  # events are facts, compared by equality
    "serving/exchange.py",  # protocols
    "forwards/side.py",  # a protocol
    "process/surroundings.py",  # protocols
    "types.py",  # names of types
}


def name_of(path: Path) -> str:
    return path.relative_to(PROGRAM).as_posix()


def behaves(path: Path) -> bool:
    """Whether a file has code that a test can call: a docstring and imports are none."""
    return any(
        not isinstance(node, (ast.Import, ast.ImportFrom, ast.Expr)) for node in ast.parse(path.read_text()).body
    )


FILES = sorted(path for path in PROGRAM.rglob("*.py") if path.name != "__init__.py" and behaves(path))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_file_has_its_tests_under_its_name_or_where_the_list_says(path: Path) -> None:
    name = name_of(path)
    own = HERE / path.relative_to(PROGRAM).with_name(f"test_{path.name}")
    if name in NO_BEHAVIOUR:
        assert not own.exists(), "it has tests, so take it off the list"
    elif name in ELSEWHERE:
        assert not own.exists(), "it has tests under its name, so take it off the list"
        assert "def test_" in (HERE / ELSEWHERE[name]).read_text()
    else:
        assert own.exists(), f"write {own.relative_to(HERE.parent)}"
        assert "def test_" in own.read_text()


def test_the_lists_name_files_that_are_there() -> None:
    assert {*ELSEWHERE, *NO_BEHAVIOUR} <= set(map(name_of, FILES))
