"""Services in a file: what is offered to whom, keys of others' services, and what an operator forgets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.config.examples import INTERFACE, write
from vpntun.config.forwards import ServiceName
from vpntun.config.services import MOST_SERVICES, Service
from vpntun.config.tunnel import Tunnel
from vpntun.crypto.keys import format_key
from vpntun.errors import KeyFileError

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
TEXT = format_key(KEY)


def test_services_are_read_with_those_who_may_use_them(read: Callable[..., Tunnel]) -> None:
    settings = read(
        *INTERFACE,
        "Service = ssh 127.0.0.1:22",
        "AllowFrom = ssh laptop, my phone",
        "AllowFrom = ssh tablet@office",
        "Service = db unix:/run/db.sock",
        f"ServiceKey = db {TEXT}",
        f"ServiceKey = ssh@desk {format_key(OTHER)}",
    ).services
    assert settings.offered == (
        Service("ssh", ("127.0.0.1", 22), None, ("laptop", "my phone", "tablet@office")),
        Service("db", Path("/run/db.sock"), KEY),
    )
    assert settings.keys == {ServiceName("ssh", "desk"): OTHER}
    assert TEXT not in repr(settings)
    assert str(KEY) not in repr(settings)


@pytest.mark.parametrize(
    ("service", "text"),
    [
        (Service("ssh", ("::1", 22), None, ("laptop", "phone")), "ssh at [::1]:22, for laptop, phone"),
        (Service("db", Path("/run/db"), KEY), "db at unix:/run/db, for every peer with its key"),
        (Service("db", Path("/run/db"), KEY, ("*",)), "db at unix:/run/db, for every peer with its key"),
    ],
)
def test_a_service_is_described_without_its_key(service: Service, text: str) -> None:
    assert str(service) == text


def test_a_key_is_read_from_a_file(read: Callable[..., Tunnel], tmp_path: Path) -> None:
    path = write(tmp_path / "service.key", TEXT.encode())
    path.chmod(0o600)
    settings = read(*INTERFACE, "Service = ssh [::1]:22", f"ServiceKey = ssh {path}").services
    assert settings.offered == (Service("ssh", ("::1", 22), KEY),)


def test_a_missing_key_file_is_named_with_the_line(read: Callable[..., Tunnel]) -> None:
    with pytest.raises(KeyFileError, match=r":3: ServiceKey: /nowhere/at/all does not exist"):
        read(*INTERFACE, "ServiceKey = ssh@desk /nowhere/at/all")


def test_a_key_that_begins_like_a_path_is_a_key(read: Callable[..., Tunnel]) -> None:
    key = b"\xfd" + bytes(31)
    assert format_key(key).startswith("/")
    settings = read(*INTERFACE, f"ServiceKey = ssh@ {format_key(key)}").services
    assert settings.keys == {ServiceName("ssh", ""): key}


@pytest.mark.parametrize(
    ("allowed", "names", "may"),
    [
        (("laptop",), ("laptop", "laptop@office"), True),
        (("laptop@office",), ("laptop", "laptop@office"), True),
        (("laptop",), ("laptop@office",), False),
        (("*",), ("anybody",), True),
        ((), ("anybody",), True),
    ],
)
def test_a_peer_may_use_what_allows_one_of_its_names(
    allowed: tuple[str, ...], names: tuple[str, ...], may: bool
) -> None:
    assert Service("ssh", ("::1", 22), KEY, allowed).permits(*names) == may


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["Service = ssh 127.0.0.1:22"], ":3: the service ssh does not say who may use it: add 'AllowFrom = ssh PEER"),
        (["Service = ssh"], "a service is a name of up to 64"),
        (["Service = s/h 127.0.0.1:22"], "a service is a name of up to 64"),
        (["Service = ssh ssh@desk"], "ssh@desk is a service of a peer"),
        (["Service = ssh 22"], "nothing can be reached at '22': give HOST:PORT"),
        (["Service = ssh [::1]:1", "Service = ssh [::1]:2", "AllowFrom = ssh *"], "two services have the same name"),
        (["AllowFrom = ssh laptop"], "there is no Service = ssh that this AllowFrom could be for"),
        ([f"ServiceKey = ssh {TEXT}"], "there is no Service = ssh that this ServiceKey could be for"),
        (["AllowFrom = ssh"], "followed by the peers that may use it"),
        ([f"ServiceKey = {TEXT}"], "a key follows the name of its service"),
        (["ServiceKey = ssh@desk short"], "key"),
        (["ServiceKey = ssh@desk"], "a key follows the name of its service, as in 'ssh KEY'"),
        (
            [line for i in range(MOST_SERVICES + 1) for line in (f"Service = s{i} [::1]:1", f"AllowFrom = s{i} *")],
            f"at most {MOST_SERVICES} services",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_a_hint(refusal: Callable[..., str], lines: list[str], says: str) -> None:
    said = refusal(*INTERFACE, *lines)
    assert says in said
    assert TEXT not in said
