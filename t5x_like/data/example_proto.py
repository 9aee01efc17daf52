"""`tf.train.Example` on the wire, as far as text needs it, without TensorFlow.

The message is `Example { features=1: Features { feature=1: map<string, Feature> } }`, where a feature is
`bytes_list=1`, `float_list=2` or `int64_list=3` (tensorflow/core/example/{example,feature}.proto). Protocol buffer
wire format: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping


def read_bytes(record: bytes, names: tuple[str, ...]) -> dict[str, list[bytes]]:
    """The values of the bytes features of these names; names that the record lacks are left out.

    Raises:
      ValueError: the record is not an Example.
    """
    wanted = {name.encode(): name for name in names}
    found: dict[str, list[bytes]] = {}
    for features in _fields(record, 1):
        for entry in _fields(features, 1):
            key = b"".join(_fields(entry, 1))
            if key in wanted:
                values = [v for f in _fields(entry, 2) for items in _fields(f, 1) for v in _fields(items, 1)]
                found[wanted[key]] = values
    return found


def read_values(record: bytes) -> dict[str, list[bytes] | list[float] | list[int]]:
    """The values of all features.

    Raises:
      ValueError: the record is not an Example.
    """
    found: dict[str, list[bytes] | list[float] | list[int]] = {}
    for features in _fields(record, 1):
        for entry in _fields(features, 1):
            feature = b"".join(_fields(entry, 2))
            texts = [v for items in _fields(feature, 1) for v in _fields(items, 1)]
            floats = b"".join(v for items in _fields(feature, 2) for v in _fields(items, 1))
            whole = b"".join(v for items in _fields(feature, 3) for v in _fields(items, 1))
            numbers = list(struct.unpack(f"<{len(floats) // 4}f", floats[: len(floats) // 4 * 4]))
            key = b"".join(_fields(entry, 1)).decode("utf-8", errors="replace")
            found[key] = texts or numbers or _whole(whole)
    return found


def _whole(packed: bytes) -> list[int]:
    """Packed int64 values, as everything that TFDS writes is packed."""
    values, position = [], 0
    while position < len(packed):
        value, position = _varint(packed, position)
        values.append(value - (1 << 64) if value >= 1 << 63 else value)
    return values


def write(features: Mapping[str, bytes | int | float]) -> bytes:
    """An Example of one value for each name."""
    entries = [
        _field(1, _field(1, name.encode()) + _field(2, _feature(value)))
        for name, value in sorted(features.items())
    ]
    return _field(1, b"".join(entries))


def _feature(value: bytes | int | float) -> bytes:
    if isinstance(value, bytes):
        return _field(1, _field(1, value))
    if isinstance(value, float):
        return _field(2, _field(1, struct.pack("<f", value)))
    return _field(3, _field(1, _as_varint(value % (1 << 64))))


def _fields(message: bytes, number: int) -> Iterator[bytes]:
    """The length-delimited fields of this number."""
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 2:
            size, position = _varint(message, position)
            if position + size > end:
                raise ValueError("record is cut off")
            if tag >> 3 == number:
                yield message[position : position + size]
            position += size
        elif kind == 0:
            _, position = _varint(message, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        else:
            raise ValueError(f"record is not a tf.train.Example (wire type {kind})")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("record is cut off")
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("record is not a tf.train.Example (bad length)")


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    content = b""
    while True:
        content += bytes([value & 127 | (128 if value > 127 else 0)])
        value >>= 7
        if not value:
            return content
