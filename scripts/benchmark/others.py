"""OpenVPN, tinc and fastd, with temporary keys and otherwise configured as their manuals recommend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmark.machines import Machine
from benchmark.subjects import TAP_PATHS, Site, Subject, configure
from vpntun.types import DeviceKind
from vpntun.wire.ethernet.frame import HEADER_SIZE

MASK = "255.255.255.0"  # of the prefix length that `Site.prefix` has


def _openvpn(proto: str, kind: DeviceKind = "tun") -> Callable[[Site], None]:
    """Set up TLS with two self-signed certificates, verified by fingerprint, and AES-256-GCM in user space."""

    def certificate(site: Site, machine: Machine) -> str:
        name = site.folder / machine.name
        if not name.with_suffix(".crt").exists():
            new = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
            files = ["-keyout", f"{name}.pem", "-out", f"{name}.crt"]
            machine.run("openssl", "req", *new, "-subj", f"/CN={machine.name}", *files)
        shown = machine.run("openssl", "x509", "-in", f"{name}.crt", "-noout", "-sha256", "-fingerprint").stdout
        return shown.strip().partition("=")[2]

    def start(site: Site) -> None:
        fingerprints = {machine.name: certificate(site, machine) for machine in (site.a, site.b)}
        for machine in (site.b, site.a):
            other = site.other(machine)
            serves = machine is site.b
            role = ("server" if serves else "client") if proto == "tcp4" else ""
            command = ["openvpn", "--dev", site.device(machine), "--dev-type", kind, "--verb", "2", "--disable-dco"]
            command += ["--proto", f"{proto}-{role}" if role else proto, "--allow-compression", "no"]
            command += ["--ifconfig", site.address(machine), site.address(other) if kind == "tun" else MASK]
            command += ["--data-ciphers", "AES-256-GCM"]
            command += ["--cert", f"{site.folder / machine.name}.crt", "--key", f"{site.folder / machine.name}.pem"]
            command += ["--peer-fingerprint", fingerprints[other.name]]
            if serves:
                command += ["--tls-server", "--dh", "none", "--local", machine.outer, "--lport", str(site.port)]
            else:
                command += ["--tls-client", "--remote", other.outer, str(site.port), "--nobind"]
                command += ["--connect-retry", "1", "1"]
            if role:
                command += ["--socket-flags", "TCP_NODELAY"]
            site.start(machine, *command)

    return start


def _tinc(kind: DeviceKind) -> Callable[[Site], None]:
    """Set up tinc's protocol 1.0 as a router or a switch, with its default ciphers (AES-256-CBC, SHA-256)."""

    def start(site: Site) -> None:
        for machine in (site.b, site.a):
            folder = site.folder / machine.name
            if not folder.exists():
                subnet = [f"Subnet = {site.address(machine)}/32"] if kind == "tun" else []  # a switch learns addresses
                _write(folder / "tinc.conf", *base(machine))
                _write(folder / "hosts" / machine.name, *subnet, f"Port = {site.port}")
                machine.run("tincd", "--config", folder, "--generate-keys", "2048")  # appends to both files
        for machine in (site.b, site.a):
            folder, other = site.folder / machine.name, site.other(machine)
            known = (site.folder / other.name / "hosts" / other.name).read_text().splitlines()
            _write(folder / "hosts" / other.name, f"Address = {other.outer}", *known)
            calls = [f"ConnectTo = {other.name}"] if machine is site.a else []
            own = [f"Interface = {site.device(machine)}", f"PrivateKeyFile = {folder / 'rsa_key.priv'}"]
            _write(folder / "tinc.conf", *base(machine), *own, *calls)
            site.start(machine, "tincd", "--config", folder, "--no-detach", "--pidfile", folder / "pid", "--debug=1")
            configure(site, machine)

    def base(machine: Machine) -> list[str]:
        mode = ["Mode = router"] if kind == "tun" else ["Mode = switch", "DeviceType = tap"]
        return [f"Name = {machine.name}", *mode, "AddressFamily = ipv4"]

    return start


def _fastd(kind: DeviceKind) -> Callable[[Site], None]:
    """Set up fastd with salsa2012+umac, which its manual recommends if the processor is the limit.

    Its manual recommends an MTU with which a packet or frame fits into one datagram.
    """
    mtu = 1420 if kind == "tun" else 1420 - HEADER_SIZE

    def start(site: Site) -> None:
        keys: dict[str, list[str]] = {}
        for machine in (site.a, site.b):
            said = machine.run("fastd", "--machine-readable", "--generate-key").stdout.strip()
            command = ["fastd", "--machine-readable", "--show-key", "--config", "-"]
            keys[machine.name] = [said, machine.run(*command, stdin=f'secret "{said}";').stdout.strip()]
        for machine in (site.b, site.a):
            other, config = site.other(machine), site.folder / f"{machine.name}.conf"
            remote = f" remote {other.outer}:{site.port};" if machine is site.a else ""
            config.unlink(missing_ok=True)
            _write(
                config,
                f'interface "{site.device(machine)}";\nmode {kind};\nmtu {mtu};\nmethod "salsa2012+umac";',
                f'log level warn;\nsecret "{keys[machine.name][0]}";',
                f"bind {machine.outer}:{site.port};" if machine is site.b else "",
                f'peer "{other.name}" {{ key "{keys[other.name][1]}";{remote} }}',
            )
            site.start(machine, "fastd", "--config", config)
            configure(site, machine)

    return start


def _write(path: Path, *lines: str) -> None:
    """Write a configuration file that only root can read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")


OTHERS = (
    Subject("openvpn-udp", _openvpn("udp4"), needs=("openvpn", "openssl")),
    Subject("openvpn-tcp", _openvpn("tcp4"), needs=("openvpn", "openssl")),
    Subject("tinc", _tinc("tun"), needs=("tincd",), quick=False),
    Subject("fastd", _fastd("tun"), needs=("fastd",), quick=False),
    Subject("openvpn-tap", _openvpn("udp4", "tap"), needs=("openvpn", "openssl"), quick=False, only_on=TAP_PATHS),
    Subject("tinc-switch", _tinc("tap"), needs=("tincd",), quick=False, only_on=TAP_PATHS),
    Subject("fastd-tap", _fastd("tap"), needs=("fastd",), quick=False, only_on=TAP_PATHS),
)
