"""README.rst: what it says is what the program does.

Each code block stands behind a comment that names it, `.. example: NAME`, or `.. example: NAME (continued)`. In a
console block the prompt says who types: `remote#` and `local#` are root on the two machines, `remote$` is alice on the
remote one, `#` is root anywhere. A line without a prompt is what the command before it says.

1. Every `vpntun ...`, in a block or in a sentence, is accepted by the real command line.
2. Where there is root, every example of two machines is run in a lab, line by line, and says what it is said to say.
3. The tables name what there is: exit statuses, rooms, messages, packages, make targets.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.netns.lab import NOBODY, STARTED, Daemon, Lab, Machine, far, state_folders, sweep, until, why_not
from vpntun import errors
from vpntun.cli.command import _check_usage, vpntun
from vpntun.config.file import KNOWN
from vpntun.config.keyfile import read_shared
from vpntun.crypto.keys import KeyPair, format_key, parse_key
from vpntun.crypto.shared import SharedIdentity
from vpntun.errors import VpntunError

CHECKOUT = Path(__file__).parents[1]
README = (CHECKOUT / "README.rst").read_text()
VECTOR = SharedIdentity.of(bytes(range(32)))  # the addresses in the README are those of docs/protocol.rst
ENDPOINT = "203.0.113.2"  # the remote machine's address in the README
KEY = Path("etc/vpntun/vpntun.key")
WIREGUARD = Path("/run/wireguard")  # where wireguard-go has its control sockets; here each machine has its own


@dataclass
class Step:
    """One command, and what it says."""

    prompt: str
    command: str
    output: list[str] = field(default_factory=list)


def blocks(name: str) -> list[str]:
    """The code blocks of this name, in order, without their indentation."""
    head = rf"^\.\. example: {re.escape(name)}(?: \(continued\))?\n\n\.\. code-block:: \w+\n\n"
    found = re.findall(head + r"((?:    .*\n|\n)+)", README, re.MULTILINE)
    assert found, f"the README has no example named {name}"
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE).strip() for block in found]


def steps(block: str) -> list[Step]:
    """The commands of a console block."""
    taken: list[Step] = []
    for line in re.sub(r" *\\\n *", " ", block).splitlines():
        typed = re.match(r"(remote|local|)([#$]) +(.*)", line)
        if typed:
            taken.append(Step(typed[1] + typed[2], typed[3]))
        else:
            taken[-1].output.append(line)
    return taken


def all_blocks() -> list[str]:
    """Every code block and every literal block."""
    found = re.findall(r"^(?:\.\. code-block:: \w+|.*\w::)\n\n((?:    .*\n|\n)+)", README, re.MULTILINE)
    return [re.sub(r" *\\\n *", " ", block) for block in found]


def command_lines() -> list[str]:
    """Every `vpntun ...` that stands in a block."""
    return [line.strip() for block in all_blocks() for line in re.findall(r"(?:^|[#$(] *)(vpntun [^|<>&)\n]+)", block)]


def mentions() -> list[str]:
    """Every `vpntun ...` that stands in a sentence."""
    return re.findall(r"``(vpntun [^`]+)``", re.sub(r"\s*\n\s*", " ", README))


def check_command_line(line: str, *, whole: bool) -> None:
    """Raises click's errors where the real command line would not accept it."""
    arguments = shlex.split(line)[1:]
    if arguments and arguments[0] in vpntun.commands:
        parent = click.Context(vpntun, **vpntun.context_settings)
        vpntun.commands[arguments[0]].make_context(arguments[0], arguments[1:], parent)
        return
    context = vpntun.make_context("vpntun", arguments)
    if whole:
        _check_usage(**context.params)


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_is_accepted(line: str) -> None:
    check_command_line(line, whole=True)


@pytest.mark.parametrize("line", [line for line in mentions() if "DEVICE:" not in line])
def test_what_a_sentence_mentions_is_accepted(line: str) -> None:
    try:
        check_command_line(line, whole=False)
    except click.exceptions.Exit as left:  # -h and -V
        assert left.exit_code == 0


def test_the_lines_are_found() -> None:
    assert len(command_lines()) >= 15
    assert "vpntun -s -i tun3" in command_lines()
    assert "vpntun -V" in mentions()


def test_a_block_without_a_name_is_none_of_the_examples() -> None:
    assert README.count(".. code-block::") == README.count(".. example:")


def test_every_option_is_explained() -> None:
    for parameter in vpntun.params:
        assert any(re.search(rf"(?<![\w-]){form}(?![\w-])", README) for form in parameter.opts), parameter.opts


def test_version_and_help() -> None:
    changes = (CHECKOUT / "CHANGES.rst").read_text()
    version = re.search(r"^(\d+\.\d+\.\d+)\n-+$", changes, re.MULTILINE)
    assert version
    assert CliRunner().invoke(vpntun, ["-V"]).output.split()[-1] == version[1]
    assert "vpntun -s -i tun3" in CliRunner().invoke(vpntun, ["-h"]).output


def test_keys_are_made_as_the_readme_pipes_them() -> None:
    runner = CliRunner()
    private = runner.invoke(vpntun, ["genkey"]).output
    public = runner.invoke(vpntun, ["pubkey"], input=private).output
    assert parse_key(public) == KeyPair.of(parse_key(private)).public
    assert len(parse_key(runner.invoke(vpntun, ["genpsk"]).output)) == 32


def table(name: str) -> list[list[str]]:
    """The rows of the table behind the comment of this name."""
    text = README.partition(f".. {name}\n")[2]
    found = re.match(r"\n(=[= ]+\n(?:.*\n)*?=[= ]+)\n\n", text)
    assert found, name
    return [re.split(r" {2,}", row.strip()) for row in found[1].splitlines() if not row.startswith("=")]


def test_the_exit_statuses_are_those_of_the_program() -> None:
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, VpntunError)]
    ours = {kind.exit_status for kind in classes}
    assert {int(row[0]) for row in table("exit statuses")[1:]} == {0, click.UsageError.exit_code, *ours}


def test_every_room_is_on_the_tour() -> None:
    package = CHECKOUT / "vpntun"
    rooms = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    rooms = {room for room in rooms if not room.endswith(("__init__.py", "__main__.py"))} - {"errors.py"}
    assert {row[0].strip("`") for row in table("rooms")} == rooms


@pytest.mark.parametrize("section", ["Interface", "Peer"])
def test_every_key_of_a_file_is_explained(section: str) -> None:
    explained = [key for row in table(f"keys of [{section}]")[1:] for key in re.findall(r"``(\w+)``", row[0])]
    assert sorted(explained) == sorted(KNOWN[section])


def test_every_message_is_in_the_source() -> None:
    source = "\n".join(path.read_text() for path in (CHECKOUT / "vpntun").rglob("*.py"))
    source = re.sub(r'"\n\s+f?"', "", source)
    source = re.sub(r"\{[^{}\n]+\}", "%s", source)
    said = re.findall(r"^\*(.+)\*\n    ", README, re.MULTILINE)
    assert len(said) >= 7
    for message in said:
        assert re.sub(r"\b(A|B|NAME)\b", "%s", message) in source, message


def test_the_packages_are_those_that_the_scripts_install() -> None:
    named = set(" ".join(blocks("packages") + blocks("packages-of-the-tests")).split())
    listed = (CHECKOUT / "scripts" / "packages").read_text()
    rows = re.findall(r"^(?:build|demo|test) +(\S+)", listed, re.MULTILINE)
    assert named - {"#", "apt", "install", "\\"} == set(rows)


def test_the_commands_of_a_developer_are_there() -> None:
    makefile = (CHECKOUT / "Makefile").read_text()
    typed = [
        step.command.split()
        for name in ("install", "first-try", "bench", "developer")
        for block in blocks(name)
        for step in steps(block)
    ]
    for words in typed:
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), words
        else:
            assert os.access(CHECKOUT / words[0], os.X_OK), words


def test_the_extra_that_is_installed_exists() -> None:
    extra = re.search(r"\$\{work\}\[(\w+)\]", (CHECKOUT / "scripts" / "install").read_text())
    assert extra
    assert f"\n{extra[1]} =\n" in (CHECKOUT / "setup.cfg").read_text()


# The examples of two machines.


@pytest.fixture(scope="module")
def _machine_lets_us() -> Iterator[None]:
    if reason := why_not():
        (pytest.fail if os.environ.get("VPNTUN_REQUIRE_NETNS") == "1" else pytest.skip)(reason)
    sweep()
    with state_folders():
        made = not WIREGUARD.exists()
        WIREGUARD.mkdir(exist_ok=True)
        yield
        if made:
            with contextlib.suppress(OSError):
                WIREGUARD.rmdir()


class Reader:
    """Who follows the README on two machines. What it calls remote is the lab's b, what it calls local is a."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.home = lab.home()
        self.machines = {"remote": lab.b, "local": lab.a}
        self.roots = {name: lab.folder / name for name in self.machines}
        for root in self.roots.values():
            self._furnish(root / "etc")
            (root / "wireguard").mkdir()
        shim = self.home / "vpntun"
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m vpntun "$@"\n')
        shim.chmod(0o755)

    def _furnish(self, etc: Path) -> None:
        (etc / "wireguard").mkdir(parents=True)
        (etc / "passwd").write_text(f"root:x:0:0::/root:/bin/sh\nalice:x:{NOBODY}:{NOBODY}::{self.home}:/bin/sh\n")
        (etc / "nsswitch.conf").write_text("hosts: files\n")
        (etc / "hosts").write_text(f"{self.lab.b.four} remote.example.org\n{self.lab.a.four} local.example.org\n")
        for name in ("ld.so.cache", "ld.so.conf"):
            if Path("/etc", name).exists():
                shutil.copy(Path("/etc", name), etc)

    def share_a_key(self) -> None:
        """What the first example ends with: the same key in the default place of both."""
        key = self.lab.key
        for root in self.roots.values():
            (root / KEY).parent.mkdir(mode=0o700)
            shutil.copy(key, root / KEY)

    def put(self, where: str, path: str, name: str) -> None:
        """Write the one block of this name to a file of that machine, with this lab's keys in it."""
        [block] = blocks(name)
        file = self.roots[where] / path.lstrip("/")
        file.touch(mode=0o600)
        file.write_text(self._translate(block))

    def put_offices_files(self) -> None:
        for where in self.roots:
            self.put(where, "/etc/vpntun/office.conf", f"office-{where}")

    def follow(self, name: str) -> None:
        for block in blocks(name):
            self.type(block)

    def type(self, block: str) -> None:
        for step in steps(block):
            self.take(step)

    def take(self, step: Step) -> None:
        """Type one command, and find that it says what it should."""
        where, user = step.prompt[:-1], "alice" if step.prompt.endswith("$") else None
        machine, command = self.machines[where], self._translate(step.command)
        if command.startswith("scp "):
            self._copy(where, command)
        elif command.startswith("vpntun check "):
            said = self.run(machine, where, command)
            assert said.splitlines() == self._translate("\n".join(step.output)).splitlines()
        elif re.match(r"vpntun (up|.*-[scf])\b", command):
            daemon = machine.vpntun(
                *shlex.split(command)[1:], user=user, env=self._environment(), binds=self._binds(where)
            )
            self._hear(daemon, step.output or ["waiting for the peer" if " -s" in command else "connected to "])
        elif command.startswith("ip link add wg"):  # the kernel may have none
            binds, device = self._binds(where), command.split()[3]
            daemon = machine.popen("wireguard-go", "-f", device, binds=binds)
            shown = ("wg", "show", device)
            assert until(lambda: machine.run(*shown, check=False, binds=binds).returncode == 0, 5), str(daemon)
        else:
            self.run(machine, where, command, user)

    def run_beside_a_server(self, name: str) -> str:
        """What the one script of this name says, on the local machine; it leaves no device."""
        self.share_a_key()
        self.take(Step("remote#", "vpntun -s -i tun3"))
        [script] = blocks(name)
        said = self.run(self.lab.a, "local", self._translate(script))
        assert not self.lab.a.has_device("tun11")
        return said

    def run(self, machine: Machine, where: str, script: str, user: str | None = None) -> str:
        done = machine.run(
            "sh", "-ec", script, check=False, user=user, env=self._environment(), binds=self._binds(where)
        )
        assert done.returncode == 0, f"{where}: {script}\n{done.stdout}{done.stderr}\n{self.lab.logs()}"
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return {"PATH": f"{self.home}:{os.environ['PATH']}", "HOME": str(self.home), "XDG_CONFIG_HOME": ""}

    def _binds(self, where: str) -> dict[str, Path]:
        return {"/etc": self.roots[where] / "etc", str(WIREGUARD): self.roots[where] / "wireguard"}

    def _hear(self, daemon: Daemon, lines: list[str]) -> None:
        for line in lines:
            until(lambda line=line: self._translate(line) in daemon.log or not daemon.running, 10)  # type: ignore[misc]
            assert self._translate(line) in daemon.log, f"not said: {self._translate(line)}\n{daemon}"

    def _copy(self, where: str, command: str) -> None:
        named = re.fullmatch(r"scp -p (\S+) root@(\w+)\.example\.org:(/etc/\S+)", command)
        assert named, command
        source = Path(named[1].replace("~", str(self.home)))
        if source.is_relative_to("/etc"):
            source = self.roots[where] / source.relative_to("/")
        shutil.copy(source, self.roots[named[2]] / named[3].lstrip("/"))

    def _translate(self, text: str) -> str:
        """The same with this lab's addresses and keys."""
        text = text.replace(ENDPOINT, self.lab.b.four).replace("ping -c", "ping -i 0.1 -c")
        for where in self.roots:
            for name, of in (("PUBLIC", self._public_key), ("PRIVATE", self._private_key)):
                if f"{where.upper()}_{name}" in text:
                    text = text.replace(f"{where.upper()}_{name}", of(where))
        key = self.roots["remote"] / KEY
        if key.exists():
            ours = SharedIdentity.of(read_shared(key))
            for end in ("server4", "client4", "server6", "client6"):
                text = re.sub(rf"{getattr(VECTOR, end)}(?![\w:])", str(getattr(ours, end)), text)
        return text

    def _private_key(self, where: str) -> str:
        [private] = self.roots[where].glob("etc/*/private.key")
        return private.read_text().strip()

    def _public_key(self, where: str) -> str:
        return format_key(KeyPair.of(parse_key(self._private_key(where))).public)


@pytest.fixture
def reader(_machine_lets_us: None, tmp_path: Path) -> Iterator[Reader]:
    lab = Lab(tmp_path)
    yield Reader(lab)
    lab.close()


@pytest.fixture
def _wireguard() -> None:
    for tool in ("wireguard-go", "wg"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


@pytest.mark.netns
def test_the_two_commands(reader: Reader) -> None:
    reader.follow("two-commands")


@pytest.mark.netns
def test_a_key_of_its_own(reader: Reader) -> None:
    (reader.roots["remote"] / "etc/vpntun").mkdir(mode=0o700)
    reader.follow("key-of-its-own")
    reader.lab.ping(reader.lab.a, reader.lab.b.address_of("tun4"))


@pytest.mark.netns
def test_addresses_and_routes(reader: Reader) -> None:
    reader.share_a_key()
    reader.lab.b.run("ip", "address", "add", "10.20.0.1/16", "dev", "lo")
    reader.follow("addresses-and-routes")


@pytest.mark.netns
def test_transport_tcp(reader: Reader) -> None:
    reader.share_a_key()
    reader.lab.block("udp", 443)
    reader.follow("transport-tcp")


@pytest.mark.netns
@pytest.mark.usefixtures("_wireguard")
def test_wireguard_answers(reader: Reader) -> None:
    reader.follow("wireguard-answers")


@pytest.mark.netns
@pytest.mark.usefixtures("_wireguard")
def test_wireguard_calls(reader: Reader) -> None:
    other = {"remote": "local", "local": "remote"}
    for step in steps(blocks("wireguard-answers")[0]):
        swapped = re.sub(r"\b(remote|local)(?=[#.])", lambda found: other[found[0]], f"{step.prompt} {step.command}")
        prompt, _, command = swapped.partition(" ")
        reader.take(Step(prompt, command))
    reader.follow("wireguard-calls")


@pytest.mark.netns
def test_configuration_files(reader: Reader) -> None:
    making_keys, using_files = blocks("configuration-files")
    reader.type(making_keys)
    reader.put_offices_files()
    reader.type(using_files)


@pytest.mark.netns
def test_a_file_of_a_shared_key(reader: Reader) -> None:
    reader.share_a_key()
    reader.put("local", "/etc/vpntun/tun11.conf", "shared-key-file")
    reader.take(Step("remote#", "vpntun -s -i tun3"))
    reader.take(Step("local#", "vpntun up tun11"))


@pytest.mark.netns
def test_keys_and_peers_alone(reader: Reader) -> None:
    reader.type(blocks("configuration-files")[0])
    reader.put_offices_files()
    reader.follow("peers-alone")


SOMETIMES = ("loss", "delivered", "queue", "dropped")
CHANGING = ("public key", "peer", "up for", "latest", "transfer", "round trip", "records", "path mtu")


@pytest.mark.netns
def test_what_a_tunnel_is_doing(reader: Reader) -> None:
    reader.share_a_key()
    shown: list[str] = []
    for block in blocks("what-it-is-doing"):
        for step in steps(block):
            if step.command.startswith("vpntun show"):
                shown = reader.run(reader.lab.a, "local", step.command).splitlines()
                said = [line for line in shown if not line.strip().startswith(SOMETIMES)]
                expected = reader._translate("\n".join(step.output)).splitlines()
                assert list(map(_what_stays, said)) == list(map(_what_stays, expected))
            else:
                reader.take(step)
    assert shown
    assert not reader.lab.a.has_device("tun11")


def _what_stays(line: str) -> str:
    """A line of `show`, without what is another every time."""
    title, colon, _ = line.partition(":")
    return title + colon if title.strip().startswith(CHANGING) else line


@pytest.mark.netns
def test_an_ordinary_user(reader: Reader) -> None:
    reader.follow("ordinary-user")


@pytest.mark.netns
def test_least_privilege(reader: Reader) -> None:
    reader.share_a_key()
    for root in reader.roots.values():
        with (root / "etc/passwd").open("a") as file:
            file.write("vpntun:x:990:990::/:/bin/false\n")
    reader.follow("least-privilege")
    reader.lab.ping(reader.lab.a, far(reader.lab))


@pytest.mark.netns
def test_a_daemon_that_is_waited_for(reader: Reader) -> None:
    assert "  state: connected\n" in reader.run_beside_a_server("daemon")


@pytest.mark.netns
def test_hooks(reader: Reader) -> None:
    reader.share_a_key()
    hook = reader.roots["local"] / "etc/vpntun/say"
    hook.write_text("#!/bin/sh\necho said $VPNTUN_EVENT of $VPNTUN_INTERFACE\n")
    hook.chmod(0o755)
    server = reader.lab.b.vpntun("-s", "-i", "tun3", "-k", reader.lab.key)
    server.wait_for(STARTED)
    [step] = steps(blocks("hooks")[0])
    reader.take(Step(step.prompt, step.command, ["said link-up of tun11"]))


@pytest.mark.netns
def test_the_script(reader: Reader) -> None:
    assert reader.run_beside_a_server("script") == "the tunnel carries\n"
