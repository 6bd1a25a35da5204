"""A reader of Protocol Buffers that knows the wire format only: what it finds owes nothing to the writer."""

import struct


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields(data):
    """Return {number: [values]}: integers of varints and fixed sizes, bytes of what has a length."""
    found = {}
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            size, code = {1: (8, "<Q"), 5: (4, "<I")}[kind]
            (value,) = struct.unpack_from(code, data, at)
            at += size
        found.setdefault(number, []).append(value)
    assert at == len(data)
    return found


def encode(number, value):
    """Return one field: an integer as a varint, text, bytes or a dict of fields with their length."""
    if isinstance(value, list):
        return b"".join(encode(number, item) for item in value)
    if isinstance(value, int):
        return encode_varint(number << 3) + encode_varint(value)
    data = value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else message(value)
    return encode_varint(number << 3 | 2) + encode_varint(len(data)) + data


def encode_varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def message(fields_):
    return b"".join(encode(number, value) for number, value in fields_.items())


def file_of(*messages):
    return b"".join(encode_varint(len(data)) + data for data in map(message, messages))


def packed(values):
    """Return the integers of a packed repeated field."""
    found = []
    for data in values:
        at = 0
        while at < len(data):
            value, at = varint(data, at)
            found.append(value)
    return found


def delimited(data):
    """Yield messages that each follow their length."""
    at = 0
    while at < len(data):
        size, at = varint(data, at)
        assert at + size <= len(data)
        yield fields(data[at : at + size])
        at += size
