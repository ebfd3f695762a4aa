"""systemd units: checked by systemd's tools, and run under a real systemd."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.boot.installed import PREFIX, Host, need
from tests.boot.systemd import Systemd, why_not
from tests.documents import blocks, steps, table
from tests.netns.lab import CHECKOUT, Lab, far, firewall, until

TEMPLATES = ("vpntun@", "vpntun-server@", "vpntun-client@")
INSTANCES = ("vpntun@office.service", "vpntun-server@tun3.service", "vpntun-client@tun11:remote.example.org.service")
SERVER, FILE = "vpntun-server@tun3.service", "vpntun@office.service"
VPNTUN = f"{PREFIX}/bin/vpntun"

Boot = Callable[..., Systemd]


@pytest.fixture(scope="session")
def _systemd(_machine_lets_us: None, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    lab = Lab(tmp_path_factory.mktemp("systemd"))
    try:
        reason = why_not(Host(lab.a, installed))
    finally:
        lab.close()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def boot(_systemd: None, lab: Lab) -> Iterator[Boot]:
    """Function that starts systemd on a machine; at the end of the test every systemd is ended."""
    started: list[Systemd] = []

    def start(*arguments: object, **how: object) -> Systemd:
        started.append(Systemd(*arguments, **how))  # type: ignore[arg-type]
        started[-1].boot()
        return started[-1]

    yield start
    for each in started:
        each.close()


def client_of(lab: Lab) -> str:
    return f"vpntun-client@tun11:{lab.b.four}.service"


def share_a_key(lab: Lab, *hosts: Host) -> None:
    for host in hosts:
        shutil.copy(lab.key, host.configuration / "vpntun.key")


def pid_of(systemd: Systemd, unit: str) -> int:
    return int(systemd.state(unit, "MainPID"))


def wait_for(systemd: Systemd, unit: str, state: str, seconds: float = 20) -> None:
    reached = until(lambda: systemd.state(unit, "ActiveState") == state, seconds, 0.05)
    assert reached, systemd.control("status", unit).stdout + systemd.journal(unit)


def is_told(systemd: Systemd, unit: str, text: str) -> bool:
    """Wait until the unit has a status line that begins so; return whether it has."""
    return until(lambda: systemd.state(unit, "StatusText").startswith(f"{text} "), 10, 0.05)


def status_of(systemd: Systemd, unit: str) -> str:
    """Return the kernel's status of a unit's process."""
    return systemd.run("cat", f"/proc/{pid_of(systemd, unit)}/status", check=True).stdout


@pytest.mark.netns
def test_systemd_finds_nothing_wrong_with_them(a: Host) -> None:
    need("systemd-analyze")
    files = [f"{PREFIX}/lib/systemd/system/{template}.service" for template in TEMPLATES]
    done = a.run("systemd-analyze", "verify", *files, check=False)
    ours = [line for line in done.stderr.splitlines() if "vpntun" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


@pytest.mark.parametrize("template", TEMPLATES)
def test_they_are_no_more_exposed_than_the_guide_says(installed: Path, template: str) -> None:
    need("systemd-analyze")
    analyze = ["systemd-analyze", "security", "--no-pager", "--offline=true", f"--root={installed}"]
    told = subprocess.run([*analyze, f"{template}.service"], capture_output=True, text=True, check=True).stdout
    overall = re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)
    assert overall
    [stated] = [float(row[-1]) for row in table("exposure of the units") if row[0] == f"``{template}``"]
    another_scale = 0.0 if _systemd_version() == 252 else 0.5
    assert float(overall[1]) <= stated + another_scale


def _systemd_version() -> int:
    told = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=True).stdout
    return int(told.split()[1])


@pytest.mark.parametrize("unit", INSTANCES)
def test_they_can_be_enabled(installed: Path, tmp_path: Path, unit: str) -> None:
    need("systemctl")
    units = Path(PREFIX[1:], "lib", "systemd")
    shutil.copytree(installed / units, tmp_path / units)
    subprocess.run(["systemctl", f"--root={tmp_path}", "enable", unit], check=True, capture_output=True)
    assert (tmp_path / "etc/systemd/system/multi-user.target.wants" / unit).is_symlink()


def test_a_folder_opened_to_the_users_group_stays_open(tmp_path: Path) -> None:
    need("systemd-tmpfiles")
    folder = tmp_path / "etc" / "vpntun"
    rules = CHECKOUT / "scripts" / "boot" / "vpntun.tmpfiles"
    create = ["systemd-tmpfiles", f"--root={tmp_path}", "--create", str(rules)]
    subprocess.run(create, check=True, capture_output=True)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o710)
    subprocess.run(create, check=True, capture_output=True)
    assert folder.stat().st_mode & 0o777 == 0o710


@pytest.mark.netns
def test_a_server_and_a_client_come_up_with_their_machines(lab: Lab, a: Host, b: Host, boot: Boot) -> None:
    server = boot(b, SERVER)
    wait_for(server, SERVER, "active")
    assert is_told(server, SERVER, "not connected")
    shutil.copy(b.configuration / "vpntun.key", a.configuration)
    client, unit = boot(a, client_of(lab)), client_of(lab)
    wait_for(client, unit, "active")
    assert is_told(client, unit, "connected")
    lab.ping(lab.a, far(lab))
    for systemd, name in ((server, SERVER), (client, unit)):
        status = status_of(systemd, name)
        for line in ("Uid:(\t990){4}", "Groups:\t990 ?", "CapEff:\t0+", "CapPrm:\t0+", "NoNewPrivs:\t1"):
            assert re.search(f"^{line}$", status, re.MULTILINE), status
        limits = systemd.run("cat", f"/proc/{pid_of(systemd, name)}/limits", check=True).stdout
        assert re.search(r"^Max open files +(\d+) +\1 ", limits, re.MULTILINE), limits


@pytest.mark.netns
def test_their_end_takes_everything_away_and_leaves_others_alone(lab: Lab, a: Host, boot: Boot) -> None:
    share_a_key(lab, a)
    systemd, unit = boot(a, SERVER), client_of(lab)
    wait_for(systemd, SERVER, "active")
    systemd.control("start", "--no-block", unit, check=True)
    assert until(lambda: lab.a.has_device("tun11"), 10)
    systemd.control("stop", unit, check=True)
    assert (systemd.state(unit, "Result"), systemd.state(unit, "MainPID")) == ("success", "0")
    assert not lab.a.has_device("tun11")
    assert "tun3" in systemd.run(VPNTUN, "show", "tun3", check=True).stdout
    systemd.control("stop", SERVER, check=True)
    assert not lab.a.has_device("tun3")


@pytest.mark.netns
def test_a_client_waits_for_network_and_name_service(lab: Lab, a: Host, b: Host, boot: Boot) -> None:
    share_a_key(lab, a, b)
    lab.a.run("ip", "link", "set", "veth0", "down")
    b.popen("vpntun", "-s", "-i", "tun3").wait_for("waiting for the peer")
    unit = "vpntun-client@tun11:remote.example.org.service"
    client = boot(a, unit)
    wait_for(client, unit, "active")
    assert is_told(client, unit, "not connected")
    a.write("/etc/hosts", f"{lab.b.four} remote.example.org\n")
    lab.a.run("ip", "link", "set", "veth0", "up")
    lab.ping(lab.a, far(lab), within=60)
    assert is_told(client, unit, "connected")
    assert client.state(unit, "NRestarts") == "0"


@pytest.mark.netns
def test_a_tunnel_that_hangs_is_restarted(lab: Lab, a: Host, boot: Boot) -> None:
    share_a_key(lab, a)
    server = boot(a, SERVER, dropins={"vpntun-server@.service": "[Service]\nWatchdogSec=2\nRestartSec=0\n"})
    wait_for(server, SERVER, "active")
    hung = pid_of(server, SERVER)
    server.run("kill", f"-{signal.SIGSTOP}", str(hung), check=True)
    assert until(lambda: server.state(SERVER, "NRestarts") != "0", 20, 0.1), server.journal(SERVER)
    wait_for(server, SERVER, "active")
    assert pid_of(server, SERVER) != hung
    assert "Watchdog timeout" in server.journal(SERVER)


@pytest.mark.netns
def test_an_error_that_a_restart_cannot_mend_causes_no_restart(a: Host, boot: Boot) -> None:
    systemd = boot(a)
    for unit, says in (
        (FILE, "there is no configuration file"),
        ("vpntun-client@tun11:remote.example.org.service", "there is no shared key"),
    ):
        assert systemd.control("start", unit).returncode != 0
        assert (systemd.state(unit, "ActiveState"), systemd.state(unit, "NRestarts")) == ("failed", "0")
        assert says in systemd.journal(unit)


OFFICE = """
[Interface]
SharedKey = {key}
Role = server
{more}
[Peer]
Name = {name}
"""


def office(host: Host, name: str, *more: str) -> None:
    """Write the file of a tunnel whose peer has this name; `more` are lines for its [Interface]."""
    key = host.machine.lab.key.read_text().split("\n")[1]
    host.write("/etc/vpntun/office.conf", OFFICE.format(key=key, name=name, more="\n".join(more)), 0o600)


def is_reloaded(systemd: Systemd, name: str) -> bool:
    """Reload the file. Return whether the same process then has a peer of this name."""
    before = pid_of(systemd, FILE)
    systemd.control("reload", FILE, check=True)
    known = until(lambda: name in systemd.run(VPNTUN, "show", "office", check=True).stdout, 10)
    assert systemd.state(FILE, "ActiveState") == "active"
    return known and pid_of(systemd, FILE) == before


@pytest.mark.netns
def test_a_file_its_hooks_and_its_reload(lab: Lab, a: Host, b: Host, boot: Boot) -> None:
    share_a_key(lab, a)
    hooks = (
        "PostUp = sysctl -w net.ipv4.ip_forward=1 net.ipv4.conf.%i.rp_filter=2",
        f"PostUp = {firewall()[0]} -w -A FORWARD -i %i -j ACCEPT",
        f"PostDown = {firewall()[0]} -w -D FORWARD -i %i -j ACCEPT",
    )
    office(b, "laptop", *hooks)
    server = boot(b, FILE)
    wait_for(server, FILE, "active")
    assert until(lambda: "-i office" in forwarding(lab), 10)
    assert lab.b.run("sysctl", "-n", "net.ipv4.conf.office.rp_filter").stdout == "2\n"
    a.popen("vpntun", "-c", lab.b.four, "-i", "tun11").wait_for("connected to")
    lab.ping(lab.a, lab.b.address_of("office"))
    office(b, "workshop", *hooks)
    assert is_reloaded(server, "workshop"), server.journal(FILE)
    lab.ping(lab.a, lab.b.address_of("office"))
    server.control("stop", FILE, check=True)
    assert not lab.b.has_device("office")
    assert "-i office" not in forwarding(lab)


def forwarding(lab: Lab) -> str:
    return lab.b.run(firewall()[0], "-S", "FORWARD").stdout


# What docs/guide.rst says, under "At boot".


def _undated(line: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "DATE", line)


@pytest.mark.netns
def test_the_guides_units(lab: Lab, a: Host, b: Host, boot: Boot) -> None:
    machines = {"remote": boot(b), "local": boot(a)}
    a.write("/etc/hosts", f"{lab.b.four} remote.example.org\n")
    [block] = blocks("units")
    for step in steps(block):
        systemd = machines[step.prompt[:-1]]
        if step.command.startswith("scp "):
            shutil.copy(b.configuration / "vpntun.key", a.configuration)
            continue
        command = re.sub(r"100\.\S+", lambda _: far(lab), step.command)
        said = systemd.run("sh", "-ec", command)
        assert said.returncode == 0, f"{command}: {said}\n{systemd.journal('*')}"
        assert list(map(_undated, said.stdout.splitlines())) == list(map(_undated, step.output)) or not step.output
    assert not lab.a.has_device("tun11")


@pytest.mark.netns
def test_the_guides_options_of_a_unit(lab: Lab, a: Host, b: Host, boot: Boot) -> None:
    [dropin] = blocks("options-of-a-unit")
    for host, unit in ((b, SERVER), (a, client_of(lab))):
        shutil.copy(lab.key, host.configuration / "office.key")
        systemd = boot(host, unit, dropins={unit: dropin})
        wait_for(systemd, unit, "active")
    assert lab.b.listens(4500)
    assert is_told(systemd, unit, "connected")


@pytest.mark.netns
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_guides_unit_serves_metrics_by_a_unix_socket_of_the_folders_group(lab: Lab, b: Host, boot: Boot) -> None:
    [folder], [dropin] = blocks("metrics-folder"), blocks("metrics-of-a-unit")
    share_a_key(lab, b)
    b.write("/etc/tmpfiles.d/vpntun-metrics.conf", folder.replace("prometheus", "990") + "\n")
    server = boot(b, dropins={SERVER: dropin})
    server.run("systemd-tmpfiles", "--create", "--prefix=/run/vpntun-metrics", check=True)
    server.control("start", SERVER, check=True)
    path = "/run/vpntun-metrics/tun3.sock"
    said = server.run("curl", "-fsS", "--unix-socket", path, "http://vpntun/metrics")
    assert 'vpntun_ready{interface="tun3"} 1.0' in said.stdout, f"{said}\n{server.journal(SERVER)}"
    assert server.run("stat", "-c", "%a %g", path).stdout == "660 990\n"


@pytest.mark.netns
def test_a_file_that_the_users_group_may_read_is_read_again(b: Host, boot: Boot) -> None:
    [block] = blocks("file-for-the-group")
    office(b, "laptop", "User = vpntun")
    server = boot(b)
    server.run("sh", "-ec", "\n".join(step.command for step in steps(block)), check=True)
    server.control("start", FILE, check=True)
    assert re.search("^Uid:(\t990){4}$", status_of(server, FILE), re.MULTILINE)
    office(b, "workshop", "User = vpntun")
    server.run("sh", "-ec", "\n".join(step.command for step in steps(block)), check=True)
    assert is_reloaded(server, "workshop"), server.journal(FILE)


@pytest.mark.netns
def test_a_unit_with_its_file_as_a_credential_is_never_root(lab: Lab, a: Host, b: Host, boot: Boot) -> None:
    share_a_key(lab, a)
    office(b, "laptop", "Address = 192.168.7.2/24")
    [dropin] = blocks("never-root")
    server = boot(b, FILE, dropins={FILE: dropin})
    wait_for(server, FILE, "active")
    status = status_of(server, FILE)
    assert re.search("^Uid:(\t990){4}$", status, re.MULTILINE), status
    a.popen("vpntun", "-c", lab.b.four, "-i", "tun11", "--address", "192.168.7.1/24").wait_for("connected to")
    lab.ping(lab.a, "192.168.7.2")
    assert is_told(server, FILE, "connected")
    server.run("test", "-S", "/run/vpntun-office/vpntun/office.sock", check=True)
    server.control("reload", FILE, check=True)
    assert until(lambda: "read the configuration again" in server.journal(FILE), 10), server.journal(FILE)
    lab.ping(lab.a, "192.168.7.2")
    server.control("stop", FILE, check=True)
    assert server.state(FILE, "Result") == "success"
    assert not lab.b.has_device("office")
