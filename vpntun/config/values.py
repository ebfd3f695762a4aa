"""Parsers for the values of a configuration file, one for each kind of value.

They accept what wg(8) and wg-quick(8) accept, and look nothing up in the network. Each raises only ConfigurationError
unless its docstring names others. The message says which values are accepted, and never shows text that might be a key.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface
from pathlib import Path
from typing import Literal, cast

from vpntun.config.keyfile import read_shared
from vpntun.crypto.keys import parse_key
from vpntun.errors import ConfigurationError
from vpntun.types import (
    LARGEST_MTU,
    LONGEST_SOCKET_PATH,
    SMALLEST_MTU,
    TRANSPORTS,
    DeviceKind,
    Interface,
    Network,
    Place,
    Transport,
    written,
)
from vpntun.wire.ethernet.mac import parse_mac

LONGEST_NAME = 64  # characters
DNS_PORT = 53

MOST_CACHED = 4096
"""Number of AllowedIPs lines to cache: a reload holds up the loop, and so parses only the lines that changed."""

TABLE_FILES = ("/usr/share/iproute2/rt_tables", "/etc/iproute2/rt_tables", "/etc/iproute2/rt_tables.d/*.conf")
"""Files with the names of routing tables, as in ip-route(8); each line is a number and a name."""

_LONGEST_HOST = 253
_LONGEST_SHOWN = 60
_LARGEST_NUMBER = 0xFFFFFFFF
_KERNELS_TABLES = {"default": 253, "main": 254, "local": 255}
_NAMED_TABLE = re.compile(r"^\s*(0x[0-9a-f]{1,8}|[0-9]{1,10})\s+([^\s#]+)", re.MULTILINE | re.IGNORECASE)
_INTERFACE_NAME = re.compile(r"(?!\.{1,2}$)[!-$&-.0-9;-~]{1,15}")  # ASCII without what the kernel refuses: /:%
_MIGHT_BE_A_KEY = re.compile(r"[A-Za-z0-9+/]{40,}")


def key(text: str) -> bytes:
    """Parse a key of 32 bytes."""
    return parse_key(_without_blanks(text))


def shared_secret(text: str) -> bytes:
    """Parse a shared key, or read it from the file with this path. Also raises KeyFileError and PrivilegeError."""
    if text.startswith("/") and not _MIGHT_BE_A_KEY.fullmatch(text.rstrip("=")):
        return read_shared(Path(text))
    try:
        return parse_key(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; or give the absolute path of a file that 'vpntun keygen' made") from None


def port(text: str) -> int:
    """Parse a port, 0 to 65535, or the name of a service."""
    with suppress(ValueError):
        return _number(text, 0, 65535)
    try:
        return socket.getservbyname(text, "udp")
    except (OSError, ValueError):
        raise ConfigurationError(f"{shown(text)} is not a port: ports are 1 to 65535") from None


def host(text: str) -> str:
    """Parse the name or address of a peer; an IPv6 address may be in brackets. An address becomes canonical."""
    try:
        return _host(text[1:-1] if text.startswith("[") and text.endswith("]") else text)
    except (OSError, ValueError):
        raise ConfigurationError(
            f"{shown(text)} is not a host: give a name or an address, such as vpn.example.org or 2001:db8::1"
        ) from None


def endpoint(text: str) -> tuple[str, int]:
    """Parse host and port from NAME:PORT, ADDRESS:PORT or [ADDRESS]:PORT."""
    written, _, behind = _without_blanks(text).rpartition(":")
    if not written or not behind or behind.endswith("]"):
        raise ConfigurationError(f"{shown(text)} is not HOST:PORT; a peer has no default port, WireGuard's use 51820")
    try:
        found = host(written)
    except ConfigurationError:
        raise ConfigurationError(
            f"{shown(text)} is not HOST:PORT; brackets go round an IPv6 address, such as [2001:db8::1]:51820"
        ) from None
    number = port(behind)
    if number == 0:
        raise ConfigurationError("port 0 cannot be called; give the port that the peer listens on")
    return found, number


def keepalive(text: str) -> float:
    """Parse the seconds between keepalives; 0 for none."""
    try:
        return 0.0 if text.lower() == "off" else float(_number(text, 0, 65535))
    except ValueError:
        raise ConfigurationError(f"{shown(text)} is not an interval: give off, or 1 to 65535 seconds") from None


def mark(text: str) -> int:
    """Parse the 32-bit mark of the tunnel's own packets; 0 for none."""
    try:
        return 0 if text.lower() == "off" else _number(text, 0, _LARGEST_NUMBER)
    except ValueError:
        raise ConfigurationError(f"{shown(text)} is not a mark: give off, or 1 to 0x{_LARGEST_NUMBER:x}") from None


def mtu(text: str) -> int:
    """Parse an MTU in bytes."""
    try:
        return _number(text, SMALLEST_MTU, LARGEST_MTU)
    except ValueError:
        raise ConfigurationError(
            f"an MTU of {shown(text)} cannot work: it must be {SMALLEST_MTU} to {LARGEST_MTU}"
        ) from None


def table(text: str, files: tuple[str, ...] = TABLE_FILES) -> Literal["auto", "off"] | int:
    """Parse auto, off, or a routing table's number or name, such as main."""
    if text.lower() in ("auto", "off"):
        return cast(Literal["auto", "off"], text.lower())
    with suppress(ValueError):
        return _number(text, 1, _LARGEST_NUMBER)
    number = _named_tables(files).get(text, 0)
    if not 1 <= number <= _LARGEST_NUMBER:
        raise ConfigurationError(
            f"{shown(text)} is not a routing table: give auto, off, a number, or a name from /etc/iproute2/rt_tables"
        )
    return number


def addresses(text: str) -> list[Interface]:
    """Parse addresses for the device, separated by commas or blanks; one without prefix length is a single host."""
    return [_address(each) for each in text.replace(",", " ").split()]


def networks(text: str) -> list[Network]:
    """Parse allowed IPs separated by commas, with their host bits masked off; an empty text has none."""
    return list(_networks(text)) if text else []


def dns(text: str) -> list[str]:
    """Parse addresses of name servers and search domains, separated by commas or blanks.

    A name server may have a port, as in 10.0.0.1:5353 and [fd00::1]:5353. Port 53 is the usual one, and left out.
    """
    return [_server_or_domain(each) for each in text.replace(",", " ").split()]


def name_server(text: str) -> Place:
    """Parse the address of a name server, which may be in brackets, and its port, DNS_PORT by default.

    Raises ValueError.
    """
    with_port = re.fullmatch(r"(?:\[(.+)\]|([0-9.]+))(?::([0-9]{1,5}))?", text)
    address, number = text, DNS_PORT
    if with_port is not None:
        address, number = with_port[1] or with_port[2], int(with_port[3] or DNS_PORT)
    ip_address(address)
    if not 1 <= number <= 65535:
        raise ValueError
    return address, number


def name(text: str) -> str:
    """Parse the name of a peer."""
    if len(text) > LONGEST_NAME or not text.isprintable():
        raise ConfigurationError(f"a name has at most {LONGEST_NAME} characters, all of them printable")
    return text


def metrics(text: str) -> Path | Place:
    """Parse the place where metrics are served: unix:PATH, ADDRESS:PORT or [ADDRESS]:PORT."""
    if text.startswith("unix:/"):
        path = Path(text.removeprefix("unix:"))
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            raise ConfigurationError(
                f"the path of a socket has at most {LONGEST_SOCKET_PATH} bytes, and {shown(text)} is longer"
            )
        return path
    written, _, behind = text.rpartition(":")
    try:
        in_brackets = written.startswith("[") and written.endswith("]")
        address = ip_address(_without_scope(written[1:-1] if in_brackets else written))
        if in_brackets != (address.version == 6):
            raise ValueError
        return str(address), _number(behind, 1, 65535)
    except ValueError:
        raise ConfigurationError(
            f"{shown(text)} is no place for metrics: give unix:/PATH, or an address of this machine and a port, such "
            "as 127.0.0.1:9586 or [::1]:9586"
        ) from None


def device(text: str) -> DeviceKind:
    """Parse the kind of the device, "tun" or "tap"."""
    return cast(DeviceKind, one_of("tun", "tap")(text))


def mac(text: str) -> bytes:
    """Parse the MAC address of a device."""
    if len(text) > _LONGEST_SHOWN or _MIGHT_BE_A_KEY.search(text):
        raise ConfigurationError(f"{shown(text)} is not a MAC address, such as 02:00:5e:10:00:01")
    return parse_mac(text)


def macs(text: str) -> list[bytes]:
    """Parse MAC addresses separated by commas or blanks."""
    return [mac(each) for each in text.replace(",", " ").split()]


def bridge(text: str) -> str:
    """Parse the name of a bridge."""
    if not _INTERFACE_NAME.fullmatch(text):
        raise ConfigurationError(f"{shown(text)} cannot be a bridge's name: give an interface's name, such as br0")
    return text


def transport(text: str) -> Transport:
    """Parse "auto" or the name of a carrier."""
    return cast(Transport, one_of(*TRANSPORTS)(text))


def one_of(*words: str) -> Callable[[str], str]:
    """Return a parser that accepts one of these words, in upper or lower case."""

    def take(text: str) -> str:
        if text.lower() not in words:
            raise ConfigurationError(f"{shown(text)} is not {', '.join(words[:-1])} or {words[-1]}")
        return text.lower()

    return take


def _host(text: str) -> str:
    """Return a host name unchanged, or an address in its canonical form. Raises ValueError or OSError.

    A name that no look-up can find is refused: one with other characters, or with a label that is empty or too long.
    """
    if ":" in text:
        return str(ip_address(text))
    if re.fullmatch(r"[0-9.]*", text):
        return socket.inet_ntoa(socket.inet_aton(text))
    if len(text) > _LONGEST_HOST or not re.fullmatch(r"[\w.-]+", text):
        raise ValueError
    text.encode("idna")
    return text


def _address(text: str) -> Interface:
    try:
        return ip_interface(_without_scope(text))
    except ValueError:
        raise ConfigurationError(f"{shown(text)} is not an address, such as 192.168.0.1/24 or fd00:1::1/64") from None


@lru_cache(maxsize=MOST_CACHED)
def _networks(text: str) -> tuple[Network, ...]:
    return tuple(_network(each) for each in text.split(","))


def _network(text: str) -> Network:
    """Parse one network as `ip_network` does, but in half the time, since there may be very many."""
    address, slash, length = _without_blanks(text).partition("/")
    try:
        if ":" in address:
            return IPv6Network((socket.inet_pton(socket.AF_INET6, address), length if slash else 128), strict=False)
        return IPv4Network((socket.inet_pton(socket.AF_INET, address), length if slash else 32), strict=False)
    except (OSError, ValueError):
        raise ConfigurationError(
            f"{shown(text.strip())} is not a network, such as 192.168.0.0/24 or fd00:1::/64, "
            "with commas between several"
        ) from None


def _server_or_domain(text: str) -> str:
    try:
        if re.fullmatch(r"[0-9.]+", text) or ":" in text:
            return _server(text)
        if not re.fullmatch(r"[\w.~-]+", text):
            raise ValueError
    except ValueError:
        raise ConfigurationError(f"{shown(text)} is neither a name server's address nor a search domain") from None
    return text


def _server(text: str) -> str:
    address, number = name_server(text)
    return address if number == DNS_PORT else written((address, number))


def _number(text: str, lowest: int, highest: int) -> int:
    """Parse a decimal number, or a hexadecimal one that starts with 0x. Raises ValueError."""
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}", text):
        raise ValueError
    number = _to_int(text)
    if not lowest <= number <= highest:
        raise ValueError
    return number


def _named_tables(files: tuple[str, ...]) -> dict[str, int]:
    tables = dict(_KERNELS_TABLES)
    for path in (each for pattern in files for each in sorted(Path("/").glob(pattern.lstrip("/")))):
        with suppress(OSError):
            for number, label in _NAMED_TABLE.findall(path.read_text("utf-8", "replace")):
                tables[label] = _to_int(number)
    return tables


def _to_int(digits: str) -> int:
    return int(digits, 16 if digits[:2] in ("0x", "0X") else 10)


def _without_blanks(text: str) -> str:
    return "".join(text.split())


def _without_scope(text: str) -> str:
    """Return the text. Raises ValueError if it has a scope (%eth0), which the ipaddress module would accept."""
    if "%" in text:
        raise ValueError
    return text


def shown(text: str) -> str:
    """Return text as an error may show it: quoted, shortened, and not at all if it might be a key."""
    if _MIGHT_BE_A_KEY.search(text):
        return "this value (not shown, since it might be a key)"
    return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "...")
