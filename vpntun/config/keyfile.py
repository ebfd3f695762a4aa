"""Reader and writer of key files, which must belong to root or this user and be closed to others.

    shared key          the line "vpntun shared key 1", then 32 bytes in base64
    private key, psk    32 bytes in base64, as `wg genkey` and `wg genpsk` write them

A key file must be a regular file. Symbolic links are not followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vpntun.crypto.keys import format_key, generate_secret, parse_key
from vpntun.errors import ConfigurationError, KeyFileError, PrivilegeError
from vpntun.runtime.folders import make_folder, users_folder

TAG = "vpntun shared key 1"
LARGEST = 4096


def default_path() -> Path:
    """Return the path of the shared key if -k is not given: the machine's for root, otherwise the user's own.

    Raises ConfigurationError for a user without a home.
    """
    if os.geteuid() == 0:
        return Path("/etc/vpntun/vpntun.key")
    return users_folder("XDG_CONFIG_HOME", ".config") / "vpntun" / "vpntun.key"


def read_shared(path: Path) -> bytes:
    """Read the 32 bytes of a shared key file. Raises KeyFileError or PrivilegeError."""
    lines = _read(path).split("\n", 1)
    if lines[0].strip() != TAG or len(lines) < 2:
        raise KeyFileError(
            f"{path} is not a shared key file (its first line is not '{TAG}'): make one with 'vpntun keygen FILE', "
            "or give a WireGuard key with --private-key"
        )
    return _parse(path, lines[1])


def read_bare(path: Path) -> bytes:
    """Read the 32 bytes of a file with one WireGuard key. Raises KeyFileError or PrivilegeError."""
    return _parse(path, _read(path))


def create_shared(path: Path) -> bytes:
    """Create a shared key file (mode 0600), and its folder (0700) if needed. Never overwrites. Raises KeyFileError."""
    secret = generate_secret()
    with prepared_shared(path, secret) as publish:
        publish()
    return secret


@contextmanager
def prepared_shared(path: Path, secret: bytes) -> Iterator[Callable[[], None]]:
    """Write a shared key to a temporary file, and yield the function that gives it its name. Raises KeyFileError.

    The temporary file is linked to its name, and never overwrites one: no reader finds an incomplete key file. If the
    function is not called, no file is left. It too raises KeyFileError.
    """
    temporary = path.parent / f".vpntun.key.{os.urandom(8).hex()}"

    def publish() -> None:
        with _explained(path):
            os.link(temporary, path)

    try:
        with _explained(path):
            make_folder(path.parent)
            _write_new(temporary, f"{TAG}\n{format_key(secret)}\n")
        yield publish
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an OSError while a key file is created into a KeyFileError."""
    try:
        yield
    except OSError as error:
        if os.path.lexists(path):
            raise KeyFileError(f"{path} already exists, and a key is never overwritten: move it away first") from None
        raise KeyFileError(f"{path} cannot be created: {error.strerror}") from error


def check_free(path: Path) -> None:
    """Raise KeyFileError if a key file is there already, as no pairing replaces one, or none can be written there."""
    if os.path.lexists(path):
        raise KeyFileError(
            f"this machine has a key already, {path}: start without --pair to use it, move it away to pair anew, or "
            "name another file with -k"
        )
    with prepared_shared(path, generate_secret()):
        pass


def _write_new(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyFileError(f"{path} does not exist: make it with 'vpntun keygen', or copy the other end's") from None
    except PermissionError:
        raise PrivilegeError(f"{path} cannot be read by this user: run as its owner, or as root") from None
    except OSError as error:
        raise KeyFileError(f"{path} cannot be opened: {error.strerror} (symbolic links are not followed)") from error
    try:
        file = os.fdopen(descriptor, "rb")
    except IsADirectoryError:
        os.close(descriptor)
        raise KeyFileError(f"{path} is a folder: give the name of the key file in it") from None
    with file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path} is not a regular file, as a key file must be")
        if status.st_uid not in (0, os.geteuid()):
            raise KeyFileError(f"{path} belongs to another user (uid {status.st_uid}): chown it to root or to yourself")
        if status.st_mode & 0o077:
            raise KeyFileError(f"{path} is open to others (mode {status.st_mode & 0o777:04o}): chmod 600 {path}")
        try:
            content = file.read(LARGEST + 1)
        except OSError as error:
            raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise KeyFileError(f"{path} is too large to be a key file")
    return content.decode("utf-8", "replace")


def _parse(path: Path, text: str) -> bytes:
    try:
        return parse_key(text.strip())
    except ConfigurationError as error:
        raise KeyFileError(f"{path}: {error}") from None
