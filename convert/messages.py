"""Protocol Buffers messages from field lists, so that a format's definition is a table and needs no compiler."""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name: getattr(_Field, f"TYPE_{name.upper()}")
    for name in (
        "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64",
        "fixed32", "fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes",
    )
}  # fmt: skip


def message_classes(
    package: str,
    syntax: str,
    messages: Mapping[str, Sequence[str]],
    enums: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Return a class a message.

    A field is `NUMBER NAME TYPE`; the type is a scalar, a message or an enum of the same call, `*TYPE` where it
    repeats, and `TYPE/ONEOF` where it is one of several. An enum's values count from 0. `syntax` is proto2 (what is
    set is written) or proto3 (zeros are left out, repeated numbers packed).
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax=syntax)
    for name, values in (enums or {}).items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for line in fields:
            _add(message, package, set(enums or ()), *line.split())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in messages
    }


def _add(
    message: descriptor_pb2.DescriptorProto, package: str, enums: set[str], number: str, name: str, kind: str
) -> None:
    kind, _, oneof = kind.partition("/")
    repeated = kind.startswith("*")
    kind = kind.lstrip("*")
    field = message.field.add(name=name, number=int(number))
    field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _Field.TYPE_ENUM if kind in enums else _Field.TYPE_MESSAGE
        field.type_name = f".{package}.{kind}"
    if oneof:
        names = [declared.name for declared in message.oneof_decl]
        if oneof not in names:
            message.oneof_decl.add(name=oneof)
            names.append(oneof)
        field.oneof_index = names.index(oneof)
