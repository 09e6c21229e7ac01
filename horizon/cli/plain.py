"""A record as names and values, for JSON: on the road it is an array."""

from __future__ import annotations

from typing import Any

import msgspec

from horizon.errors import DecodeError


def plain(payload: bytes) -> dict[str, Any]:
    """What the bytes of a record say; of bytes that are none the reason and the bytes themselves."""
    from horizon.wire import decode_record

    try:
        record = decode_record(payload)
    except DecodeError as error:
        return {"kind": None, "problem": str(error), "bytes": payload.hex()}
    return {"kind": type(record).__name__, **_named(record)}


def _named(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: _named(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple):
        return [_named(item) for item in value]
    return value
