"""The one error tree. Every message names the file, the row or the flag, and what to do.

EidolaError
├── UsageError       an argument or a combination of arguments that makes no sense
├── InputError       a file that cannot be read as what it was given for
│   └── SchemaError  a trace or result that breaks the schema
├── StallError       a program that cannot go on; says who waits for what
├── CaptureError     a capture that could not be made or completed
└── MissingError     a package, compiler, device or permission that is not there
"""


class EidolaError(Exception):
    """Base of everything that this package raises on purpose.

    The command line prints it as one paragraph and exits with `exit_code`.
    """

    exit_code = 1


class UsageError(EidolaError):
    """An argument, or a combination of arguments, that makes no sense."""

    exit_code = 2


class InputError(EidolaError):
    """A file that cannot be read as what it was given for."""

    exit_code = 3


class SchemaError(InputError):
    """A trace or a result that breaks the schema: names table, column, row and remedy."""


class StallError(EidolaError):
    """A program that cannot go on: some agent waits for a flag that nobody will raise."""

    exit_code = 4


class CaptureError(EidolaError):
    """A capture that could not be made, or that ended without a record."""

    exit_code = 5


class MissingError(EidolaError):
    """A package, a compiler, a device or a permission that is not there."""

    exit_code = 6
