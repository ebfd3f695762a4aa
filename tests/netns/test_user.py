"""A tunnel that goes on as an ordinary user once it is set up: what that user can do, and what it can undo."""

from __future__ import annotations

import re
import signal

import pytest

from tests.netns.daemons import NET_ADMIN, configured, runs_as_nobody
from tests.netns.lab import NOBODY, PORT, Lab, far, start_client, start_pair, start_server


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_both_ends_work_as_a_user_without_any_capability(lab: Lab, transport: str) -> None:
    daemons = start_pair(lab, "--user", "nobody", "--transport", transport)
    lab.ping(lab.a, far(lab))
    lab.transfer(5_000_000, far(lab))
    assert all(runs_as_nobody(daemon, 0) for daemon in daemons)
    for daemon in daemons:
        assert "running as nobody now, without any capability" in daemon.log
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log
    assert not lab.a.has_device("tun11")


def test_a_client_that_gave_up_root_reconnects(lab: Lab) -> None:
    server = start_server(lab, "--user", "nobody")
    start_client(lab, "--user", "nobody", "--transport", "tcp")
    lab.ping(lab.a, far(lab))
    assert server.stop() == 0
    start_server(lab, "--user", "nobody")
    lab.ping(lab.a, far(lab), within=10)


def test_a_server_that_gave_up_root_remembers_its_clients_endpoint(lab: Lab) -> None:
    server, _ = start_pair(lab, "--transport", "udp", "--user", "nobody")
    lab.ping(lab.a, far(lab))
    assert server.stop() == 0
    start_server(lab, "--transport", "udp", "--user", "nobody")
    lab.ping(lab.a, far(lab), within=10)


def test_the_control_socket_of_a_daemon_that_gave_up_root_belongs_to_root(lab: Lab) -> None:
    start_server(lab, "--user", "nobody")
    assert "interface: tun3" in lab.b.ask("show", "tun3")[1]
    assert lab.b.ask("down", "tun3") == (0, "")
    start_server(lab, "--user", "nobody")


def test_a_daemon_that_must_undo_changes_to_an_existing_device_keeps_one_capability(lab: Lab) -> None:
    lab.b.run("ip", "tuntap", "add", "dev", "tun3", "mode", "tun")
    server = start_server(lab, "--user", "nobody", "--address", "192.168.9.2/24", "--mtu", "1400")
    assert runs_as_nobody(server, NET_ADMIN)
    assert "with CAP_NET_ADMIN alone" in server.log
    assert server.stop() == 0
    assert lab.b.addresses("tun3") == []
    assert "mtu 1500" in lab.b.run("ip", "link", "show", "dev", "tun3").stdout


def test_a_full_tunnel_is_undone_by_the_user(lab: Lab) -> None:
    start_server(lab)
    before = [lab.a.run("ip", version, "rule").stdout for version in ("-4", "-6")]
    full = f"Endpoint = {lab.b.four}:{PORT}\nAllowedIPs = 0.0.0.0/0, ::/0"
    client = lab.a.vpntun("up", configured(lab, lab.a, "client", "User = nobody", peer=full))
    client.wait_for("connected to")
    assert runs_as_nobody(client, NET_ADMIN)
    lab.ping(lab.a, far(lab))
    assert "32402" in lab.a.run("ip", "-4", "rule").stdout
    assert client.stop() == 0
    assert [lab.a.run("ip", version, "rule").stdout for version in ("-4", "-6")] == before


def test_post_up_lines_run_as_root_and_down_lines_as_the_user(lab: Lab) -> None:
    lines = [f"{when} = echo {when} is $(id -u)" for when in ("PreUp", "PostUp", "PreDown", "PostDown")]
    server = lab.b.vpntun("up", configured(lab, lab.b, "server", "User = nobody", *lines))
    server.wait_for("waiting for the peer")
    assert server.stop() == 0
    assert re.findall(r"(\w+) is (\d+)", server.log) == [
        ("PreUp", "0"),
        ("PostUp", "0"),
        ("PreDown", str(NOBODY)),
        ("PostDown", str(NOBODY)),
    ]


def test_a_file_that_the_user_cannot_read_is_reported_at_once_and_a_reload_changes_nothing(lab: Lab) -> None:
    path = configured(lab, lab.b, "server", "User = nobody")
    server = lab.b.vpntun("up", path)
    server.wait_for(f"nobody cannot read {path} again at SIGHUP")
    server.wait_for("waiting for the peer")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("nothing has changed")
    assert server.running


def test_name_servers_and_a_user_are_refused_together(lab: Lab) -> None:
    path = configured(lab, lab.b, "server", "User = nobody", "DNS = 192.0.2.53")
    status, said = lab.b.ask("up", path)
    assert (status, "leave out either the user or DNS" in said) == (3, True), said
