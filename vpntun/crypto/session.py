"""One session: sealing and opening of its data messages, with counters and replay window.

    sending:    header(receiver, counter) | ChaCha20-Poly1305(packet)      the counter increases and never wraps
    receiving:  the caller finds the session by its index and asks may_receive -> AEAD -> replay window -> plaintext

A message must be authenticated before the replay window is consulted and its counter is marked. A session may be used
for 180 s and 2^64 - 2^13 - 1 messages (WireGuard paper, sections 5.4.6 and 6). Times are in seconds, of any one clock
that the caller chooses.
"""

from __future__ import annotations

import struct

from vpntun.crypto.aead import Aead, new_aead
from vpntun.crypto.noise import SessionKeys
from vpntun.crypto.replay import LIMIT, ReplayWindow
from vpntun.errors import BadPacket
from vpntun.wire.message import DATA, DATA_HEADER, DATA_OVERHEAD, HEADER_SIZE, Buffer

REKEY_AFTER_TIME = 120
REKEY_ON_RECEIVE_AFTER = 165
REJECT_AFTER_TIME = 180
REKEY_AFTER_MESSAGES = 2**60
REJECT_AFTER_MESSAGES = LIMIT

_pack_header = DATA_HEADER.pack_into
_unpack_counter = struct.Struct("<Q").unpack_from
_COUNTER_OFFSET = 8


class SessionExhausted(RuntimeError):
    """The counter has reached its limit or the session was wiped, and the caller did not ask `may_send`."""


class Session:
    """The two keys of one handshake, with the counters sent and received under them."""

    __slots__ = (
        "_opener",
        "_sealer",
        "created",
        "highest_received",
        "initiator",
        "local_index",
        "remote_index",
        "replay",
        "send_counter",
    )

    def __init__(self, keys: SessionKeys, local_index: int, remote_index: int, initiator: bool, created: float) -> None:
        """`initiator`: whether this end initiated. `created`: time in seconds. The peer sends to `local_index`."""
        self._sealer: Aead | None = new_aead(keys.send)
        self._opener: Aead | None = new_aead(keys.receive)
        self.local_index = local_index
        self.remote_index = remote_index
        self.initiator = initiator
        self.created = created
        self.send_counter = 0
        """The counter of the next message, and so the number of messages sealed."""
        self.highest_received = -1
        """The greatest counter of an authenticated message that was not a replay; -1 before the first."""
        self.replay = ReplayWindow()

    def may_send(self, now: float) -> bool:
        """Whether the session is younger than 180 s, has counters left and was not wiped."""
        return (
            self._sealer is not None
            and now - self.created < REJECT_AFTER_TIME
            and self.send_counter < REJECT_AFTER_MESSAGES
        )

    def may_receive(self, now: float) -> bool:
        """Whether the session is younger than 180 s and was not wiped."""
        return self._opener is not None and now - self.created < REJECT_AFTER_TIME

    def seal_into(self, plaintext: Buffer, message: memoryview) -> int:
        """Write a data message; return its size, which is 32 bytes more than the plaintext's.

        `message` may be longer. The plaintext lies elsewhere or, to be sealed in place, exactly at message[16:].
        Raises SessionExhausted, which asking `may_send` first avoids, and ValueError if `message` is too short.
        """
        counter = self.send_counter
        sealer = self._sealer
        if sealer is None or counter >= REJECT_AFTER_MESSAGES:
            raise SessionExhausted("this session can send no more: it needs a new handshake")
        size = len(plaintext) + DATA_OVERHEAD
        self.send_counter = counter + 1
        _pack_header(message, 0, DATA, self.remote_index, counter)
        sealer.seal_into(counter, plaintext, message[HEADER_SIZE:size])
        return size

    def open_into(self, message: Buffer, plaintext: memoryview) -> int:
        """Write the plaintext of a data message; return its size, which is 32 bytes less than the message's.

        Pass `message` as a memoryview; other types are copied. `plaintext` may be longer; it lies elsewhere or, to be
        opened in place, begins at message[16]. If the message is refused, `plaintext` holds garbage. The caller has
        checked the type, the receiver index and `may_receive`.

        Raises BadPacket: "bad size", "bad tag", "replayed" (also too old, or a counter at the limit) or "no session"
        (wiped), and ValueError if `plaintext` is too short.
        """
        size = len(message) - DATA_OVERHEAD
        if size < 0:
            raise BadPacket("bad size")
        opener = self._opener
        if opener is None:
            raise BadPacket("no session")
        counter: int = _unpack_counter(message, _COUNTER_OFFSET)[0]
        opener.open_into(counter, message[HEADER_SIZE:], plaintext[:size])
        if not self.replay.mark(counter):
            raise BadPacket("replayed")
        if counter > self.highest_received:
            self.highest_received = counter
        return size

    def wipe(self) -> None:
        """Drop the keys: from now on nothing can be sent or received."""
        self._sealer = None
        self._opener = None
