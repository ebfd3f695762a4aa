"""OpenVPN, tinc and fastd, with temporary keys and otherwise configured as their manuals recommend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmark.machines import Machine
from benchmark.subjects import Site, Subject, configure


def _openvpn(proto: str) -> Callable[[Site], None]:
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
            command = ["openvpn", "--dev", site.device(machine), "--dev-type", "tun", "--verb", "2", "--disable-dco"]
            command += ["--proto", f"{proto}-{role}" if role else proto, "--allow-compression", "no"]
            command += ["--ifconfig", site.address(machine), site.address(other), "--data-ciphers", "AES-256-GCM"]
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


def _tinc(site: Site) -> None:
    """Set up tinc's protocol 1.0 in router mode, with its default ciphers (AES-256-CBC, SHA-256)."""
    for machine in (site.b, site.a):
        folder = site.folder / machine.name
        if not folder.exists():
            _write(folder / "tinc.conf", f"Name = {machine.name}", "Mode = router", "AddressFamily = ipv4")
            _write(folder / "hosts" / machine.name, f"Subnet = {site.address(machine)}/32", f"Port = {site.port}")
            machine.run("tincd", "--config", folder, "--generate-keys", "2048")  # appends to both files
    for machine in (site.b, site.a):
        folder, other = site.folder / machine.name, site.other(machine)
        known = (site.folder / other.name / "hosts" / other.name).read_text().splitlines()
        _write(folder / "hosts" / other.name, f"Address = {other.outer}", *known)
        calls = [f"ConnectTo = {other.name}"] if machine is site.a else []
        base = [f"Name = {machine.name}", "Mode = router", "AddressFamily = ipv4"]
        own = f"Interface = {site.device(machine)}"
        _write(folder / "tinc.conf", *base, own, *calls, f"PrivateKeyFile = {folder / 'rsa_key.priv'}")
        site.start(machine, "tincd", "--config", folder, "--no-detach", "--pidfile", folder / "pid", "--debug=1")
        configure(site, machine)


def _fastd(site: Site) -> None:
    """Set up fastd in TUN mode with salsa2012+umac, which its manual recommends if the processor is the limit."""
    keys: dict[str, list[str]] = {}
    for machine in (site.a, site.b):
        said = machine.run("fastd", "--machine-readable", "--generate-key").stdout.strip()
        public = machine.run("fastd", "--machine-readable", "--show-key", "--config", "-", stdin=f'secret "{said}";')
        keys[machine.name] = [said, public.stdout.strip()]
    for machine in (site.b, site.a):
        other, config = site.other(machine), site.folder / f"{machine.name}.conf"
        remote = f" remote {other.outer}:{site.port};" if machine is site.a else ""
        config.unlink(missing_ok=True)
        _write(
            config,
            f'interface "{site.device(machine)}";\nmode tun;\nmtu 1420;\nmethod "salsa2012+umac";\nlog level warn;',
            f'secret "{keys[machine.name][0]}";',
            f"bind {machine.outer}:{site.port};" if machine is site.b else "",
            f'peer "{other.name}" {{ key "{keys[other.name][1]}";{remote} }}',
        )
        site.start(machine, "fastd", "--config", config)
        configure(site, machine)


def _write(path: Path, *lines: str) -> None:
    """Write a configuration file that only root can read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")


OTHERS = (
    Subject("openvpn-udp", _openvpn("udp4"), needs=("openvpn", "openssl")),
    Subject("openvpn-tcp", _openvpn("tcp4"), needs=("openvpn", "openssl")),
    Subject("tinc", _tinc, needs=("tincd",), quick=False),
    Subject("fastd", _fastd, needs=("fastd",), quick=False),
)
