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
