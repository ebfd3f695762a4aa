"""Files of a run's mount namespace, seen by programs in it, above the /etc and /run of an imitated machine.

The machine is a mount namespace in which /etc and /run are folders of the test. The run is a second one inside it,
whose user is 1000 there, or root.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine import logged
from vpntun.namespace.files import resolv_conf_of, without_other_ways

CHECKOUT = Path(__file__).parents[2]
MACHINE = ["unshare", "--user", "--map-root-user", "--mount", "--net"]
PREPARE = "set -e; mount --bind etc /etc; mount --bind run /run; cd {checkout}; {more}\n"
RUN = "unshare --user --map-user={user} --map-group={user} --mount --keep-caps {python} -c {program} {dns}"
PROGRAM = """
import subprocess, sys
from vpntun.namespace.files import NamespaceFiles
from vpntun.runtime.loop import Loop
loop = Loop()
NamespaceFiles(sys.argv[1:]).keep(loop)
script = subprocess.Popen(["sh", "-c", {script!r}])
while script.poll() is None:
    loop.serve(lambda: script.poll() is not None, 0.02)
sys.exit(script.returncode)
"""

See = Callable[..., str]


@pytest.fixture
def see(tmp_path: Path) -> See:
    """Run a shell script inside, and return its output."""
    if subprocess.run([*MACHINE, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("mount namespaces are refused here")
    for folder in ("etc", "run", "run/nscd", "run/systemd/resolve", "run/avahi-daemon"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/nsswitch.conf").write_text(
        "passwd: files\nhosts: files mymachines resolve [!UNAVAIL=return] dns\n"
    )
    (tmp_path / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    (tmp_path / "etc/hosts").write_text("192.0.2.7 printer\n")

    def see(script: str, *dns: str, user: int = 1000, prepare: str = "", around: str = "{run}") -> str:
        program = shlex.quote(PROGRAM.format(script=script))
        run = RUN.format(user=user, python=shlex.quote(sys.executable), program=program, dns=shlex.join(dns))
        machine = PREPARE.format(checkout=shlex.quote(str(CHECKOUT)), more=prepare) + around.format(run=run)
        done = subprocess.run(
            [*MACHINE, "sh", "-c", machine], cwd=tmp_path, text=True, capture_output=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return see


@pytest.mark.parametrize("user", [1000, 0])
def test_names_are_looked_up_as_the_tunnel_says_and_the_machine_keeps_its_files(see: See, user: int) -> None:
    script = "cat /etc/resolv.conf; grep hosts: /etc/nsswitch.conf; cat /etc/hosts"
    seen = see(script, "10.9.0.1", "office.internal", "fd09::1", user=user, around="{run}; cat /etc/resolv.conf")
    assert seen.splitlines()[1:] == [
        "nameserver 10.9.0.1",
        "nameserver fd09::1",
        "search office.internal",
        "hosts: files dns",
        "192.0.2.7 printer",
        "nameserver 192.0.2.1",
    ]


REPLACE = (
    "echo nameserver 192.0.2.66 > /etc/new; mv /etc/new /etc/resolv.conf; mv /etc/nsswitch.conf /etc/old; "
    "cp /etc/old /etc/nsswitch.conf; rmdir /run/nscd /run/systemd/resolve; "
    "mkdir -p /run/nscd /run/systemd/resolve; touch /run/nscd/socket"
)


@pytest.mark.parametrize("user", [1000, 0])
def test_our_files_stay_when_the_machine_replaces_its_own(see: See, user: int) -> None:
    around = f"mkfifo /run/up /run/go; {{run}} & read up < /run/up; {REPLACE}; echo > /run/go; wait $!"
    ours = "grep -q 10.9.0.1 /etc/resolv.conf && grep -q 10.9.0.1 /run/systemd/resolve/resolv.conf"
    ours += " && grep -q 'hosts: files dns' /etc/nsswitch.conf && test ! -e /run/nscd/socket"
    script = f"echo > /run/up; read go < /run/go; until {ours}; do sleep 0.05; done; echo all ours"
    assert see(script, "10.9.0.1", user=user, around=around) == "all ours\n"


def test_an_ordinary_users_name_servers_are_ours_at_every_moment(see: See) -> None:
    around = (
        "mkfifo /run/up; {run} & read up < /run/up; for each in $(seq 100); do "
        "echo nameserver 192.0.2.66 > /etc/new; mv /etc/new /etc/resolv.conf; done; touch /run/end; wait $!"
    )
    look = "grep -q 10.9.0.1 /etc/resolv.conf || echo theirs"
    seen = see(f"echo > /run/up; until [ -e /run/end ]; do {look}; done; echo end", "10.9.0.1", around=around)
    assert seen == "end\n"


def test_a_program_that_looks_names_up_is_hidden_when_it_starts_later(see: See) -> None:
    around = "mkfifo /run/up; {run} & read up < /run/up; mkdir /run/nscd; touch /run/nscd/socket; wait $!"
    script = "echo > /run/up; until [ -e /run/nscd -a ! -e /run/nscd/socket ]; do sleep 0.05; done; echo hidden"
    assert see(script, prepare="rmdir /run/nscd", around=around) == "hidden\n"


def test_root_can_still_write_other_files_of_etc(see: See) -> None:
    assert see("echo kept > /etc/motd", user=0, around="{run}; cat /etc/motd") == "kept\n"


@pytest.mark.parametrize("user", [1000, 0])
def test_a_link_into_the_folder_of_systemd_resolved_leads_to_our_name_servers(see: See, user: int) -> None:
    link = (
        "ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf; touch /run/systemd/resolve/stub-resolv.conf"
    )
    script = "cat /etc/resolv.conf /run/systemd/resolve/*resolv.conf | grep nameserver"
    assert see(script, "10.9.0.1", user=user, prepare=link).splitlines() == ["nameserver 10.9.0.1"] * 3


def test_files_that_are_mounts_themselves_are_covered_as_well(see: See) -> None:
    mount = "echo nameserver 192.0.2.9 > /run/$each; mount --bind /run/$each /etc/$each"
    mounts = f"for each in hosts resolv.conf; do {mount}; done"
    script = "grep -h nameserver /etc/resolv.conf /etc/hosts; grep hosts: /etc/nsswitch.conf"
    seen = see(script, "10.9.0.1", prepare=mounts).splitlines()
    assert seen == ["nameserver 10.9.0.1", "nameserver 192.0.2.9", "hosts: files dns"]


def test_an_ordinary_user_has_name_servers_where_the_machine_has_none(see: See) -> None:
    seen = see(
        "grep nameserver /etc/resolv.conf; ls /etc", "10.9.0.1", prepare="rm /etc/resolv.conf /etc/nsswitch.conf"
    )
    assert seen.split() == ["nameserver", "10.9.0.1", "hosts", "resolv.conf"]


def test_root_is_told_that_there_is_no_file_to_replace(see: See) -> None:
    assert see("test ! -e /etc/resolv.conf", "10.9.0.1", user=0, prepare="rm /etc/resolv.conf") == ""


@pytest.mark.parametrize("user", [1000, 0])
def test_sockets_of_programs_that_look_names_up_are_hidden(see: See, user: int) -> None:
    sockets = ("nscd/socket", "systemd/resolve/io.systemd.Resolve", "avahi-daemon/socket")
    make = "; ".join(f"touch /run/{each}" for each in sockets)
    seen = see("cd /run; find nscd systemd avahi-daemon -type f | sort", user=user, prepare=make)
    assert seen.split() == ["systemd/resolve/resolv.conf", "systemd/resolve/stub-resolv.conf"]


NSCD = """
import socket
s = socket.socket(socket.AF_UNIX)
s.bind("/run/nscd/socket")
s.listen()
s.settimeout(30)
print(flush=True)
while True:
    asked = s.accept()[0].recv(4096)
    for name in ("inside", "outside"):
        if f"{name}.example".encode() in asked:
            print(name, flush=True)
"""


def test_the_c_library_does_not_ask_a_daemon_of_the_machine(see: See) -> None:
    start = (
        f"mkfifo /run/says; {shlex.join([sys.executable, '-c', NSCD])} > /run/says 2>&1 & exec 3< /run/says; read _ <&3"
    )
    around = "{run}; getent hosts outside.example || true; read word <&3; kill $!; echo $word"
    assert see("getent hosts inside.example || true", "10.9.0.1", prepare=start, around=around) == "outside\n"


@pytest.mark.parametrize("user", [1000, 0])
def test_our_files_can_neither_be_changed_nor_uncovered_without_capabilities(see: See, user: int) -> None:
    attempt = "echo > /etc/resolv.conf || rm -f /etc/resolv.conf || touch /run/nscd/socket || umount /run/nscd"
    weak = f"setpriv --bounding-set=-all --inh-caps=-all sh -c '{attempt} && exit 1; cat /etc/resolv.conf'"
    assert "nameserver 10.9.0.1" in see(f"{weak} 2>&1", "10.9.0.1", user=user)


def test_files_that_ssh_includes_belong_to_the_user(see: See) -> None:
    included, policy = "/etc/ssh/ssh_config.d/a.conf", "/etc/crypto-policies/back-ends/openssh.config"
    make = (
        f"mkdir -p /etc/ssh/ssh_config.d /etc/crypto-policies/back-ends; echo 'Host a' > {included}; "
        f"echo '# a policy' > /run/policy; ln -s /run/policy {policy}"
    )
    assert see(f"stat -c %u {included} {policy}; cat {included} {policy}", prepare=make).splitlines() == [
        *("1000", "1000"),
        *("Host a", "# a policy"),
    ]


def test_without_name_servers_none_is_named() -> None:
    text = resolv_conf_of(["office.internal"])
    assert "nameserver" not in text
    assert text.endswith("search office.internal\n")
    assert "no name server" in text


def test_name_servers_at_other_ports_are_left_out_with_a_notice() -> None:
    with logged() as lines:
        text = resolv_conf_of(["192.0.2.1:53", "[fd00::1]:53", "192.0.2.2:5353", "[fd00::2]:853", "fd00::3"])
    assert text.splitlines()[1:] == ["nameserver 192.0.2.1", "nameserver fd00::1", "nameserver fd00::3"]
    assert lines == ["name servers at other ports than 53 are not asked in a run: 192.0.2.2:5353, [fd00::2]:853"]


def test_the_module_that_knows_this_machines_name_stays() -> None:
    text = "passwd: files\nhosts:  mymachines resolve [!UNAVAIL=return] files myhostname dns\n"
    assert without_other_ways(text) == "passwd: files\nhosts: files myhostname dns\n"


@given(st.text())
def test_whatever_an_nsswitch_file_says_names_are_looked_up_in_files_and_by_dns(text: str) -> None:
    changed = without_other_ways(text).split("\n")
    hosts = [line for line in changed if line.strip(" \t").startswith("hosts:")]
    assert hosts in (["hosts: files dns"], ["hosts: files myhostname dns"])
