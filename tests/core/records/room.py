"""The room for a record, asked for as a link does."""

from __future__ import annotations

from vpntun.core.records.protocol import RecordProtocol
from vpntun.crypto.session import Session


def room_of(records: RecordProtocol, session: Session, now: float) -> int:
    """Refresh what is due, and return the bytes that a record may have."""
    if now >= records.refresh_due:
        records.refresh(session, now)
    return records.room
