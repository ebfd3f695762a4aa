"""Metrics of a running tunnel, as a client on its machine or at the other end of the tunnel reads them."""

from __future__ import annotations

import signal
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.netns.daemons import configured
from tests.netns.lab import STARTED, Daemon, Lab, Machine, far, start_client, start_server, until

PLACE = "127.0.0.1:9586"


def scrape(machine: Machine, *where: str) -> dict[str, float]:
    """Return the samples at a place, by name, and by name and the label that tells them apart."""
    text = machine.run("curl", "-fsS", *(where or (f"http://{PLACE}/metrics",))).stdout
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            other = [value for name, value in sample.labels.items() if name in ("carrier", "state")]
            found[" ".join([sample.name, *other])] = sample.value
    return found


def test_a_scrape_follows_the_link_and_its_traffic(lab: Lab) -> None:
    start_server(lab, "--metrics", PLACE)
    before = scrape(lab.b)
    assert (before["vpntun_ready"], before["vpntun_peer_up"], before["vpntun_peer_sent_bytes_total"]) == (1, 0, 0)
    start_client(lab)
    lab.ping(lab.a, far(lab))
    assert until(lambda: scrape(lab.b)["vpntun_peer_up"] == 1, 10)
    lab.transfer(1_000_000, far(lab))
    assert until(lambda: scrape(lab.b)["vpntun_peer_received_bytes_total"] > 1_000_000, 10)
    after = scrape(lab.b)
    assert (after["vpntun_peer_carrier_info udp"], after["vpntun_peer_state connected"]) == (1, 1)
    assert 0 < after["vpntun_peer_round_trip_seconds"] < 5
    assert after["process_cpu_seconds_total"] > 0
    states = ("vpntun_peer_carrier_up", "vpntun_peer_handshake_fresh", "vpntun_peer_data_verified")
    assert [after[state] for state in states] == [1, 1, 1]


def test_a_scrape_finds_out_that_the_peer_is_gone_although_the_link_is_idle(lab: Lab) -> None:
    start_server(lab, "--metrics", PLACE)
    client = start_client(lab)
    lab.ping(lab.a, far(lab))
    assert until(lambda: scrape(lab.b)["vpntun_peer_data_verified"] == 1, 10)
    client.process.send_signal(signal.SIGSTOP)
    try:
        assert until(lambda: scrape(lab.b)["vpntun_peer_data_verified"] == 0, 20)
        assert scrape(lab.b)["vpntun_peer_handshake_fresh"] == 1
    finally:
        client.process.send_signal(signal.SIGCONT)
    assert until(lambda: scrape(lab.b)["vpntun_peer_data_verified"] == 1, 20)


def test_the_other_end_scrapes_through_the_tunnel(lab: Lab) -> None:
    file = configured(lab, lab.b, "server", "Address = 10.9.0.1/24", "Metrics = 10.9.0.1:9586")
    server = lab.b.vpntun("up", file)
    server.wait_for(STARTED)
    start_client(lab, "--address", "10.9.0.2/24")
    lab.ping(lab.a, "10.9.0.1")
    assert scrape(lab.a, "http://10.9.0.1:9586/metrics")["vpntun_peer_up"] == 1


def test_a_unix_socket_serves_until_the_end_and_a_reload_keeps_it(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    file = configured(lab, lab.b, "server", f"Metrics = unix:{path}")
    server = lab.b.vpntun("up", file)
    server.wait_for(STARTED)
    where = ("--unix-socket", str(path), "http://vpntun/metrics")
    assert scrape(lab.b, *where)["vpntun_ready"] == 1
    file.write_text(file.read_text().replace(str(path), f"{path}2"))
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("some changes in the [Interface] section need a restart")
    assert scrape(lab.b, *where)["vpntun_ready"] == 1
    assert server.stop() == 0
    assert not path.exists()


def test_the_port_outlasts_the_privileges(lab: Lab) -> None:
    server = start_server(lab, "--metrics", PLACE, "--user", "nobody")
    server.wait_for("running as nobody now")
    found = scrape(lab.b)
    assert found["vpntun_ready"] == 1
    assert found["process_open_fds"] > 3
    assert found["process_resident_memory_bytes"] > 1 << 20


def test_a_port_in_use_is_refused_and_nothing_is_left(lab: Lab) -> None:
    start_server(lab, "--metrics", PLACE)
    ended, said = lab.b.ask("-s", "-i", "tun4", "-p", "4500", "-k", lab.key, "--metrics", PLACE)
    assert (ended, said) == (
        7,
        f"vpntun: {PLACE} is in use: stop the program that holds it, or choose another port with --metrics\n",
    )
    assert not lab.b.has_device("tun4")


def test_without_the_package_one_line_says_how_to_install_it(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "prometheus_client.py").write_text("raise ImportError\n")
    daemon: Daemon = lab.b.vpntun(
        "-s", "-i", "tun3", "-k", lab.key, "--metrics", PLACE, env={"PYTHONPATH": str(tmp_path / "missing")}
    )
    assert daemon.wait() == 1
    [line] = daemon.log.splitlines()
    assert "prometheus_client writes the metrics, and is not installed: install it (pip install" in line
