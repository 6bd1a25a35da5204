"""Numbers and names as people read them."""

import html
import re

_TIMES = ((1_000_000_000_000, "s"), (1_000_000_000, "ms"), (1_000_000, "µs"), (1000, "ns"), (1, "ps"))
_SIZES = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (1000, "kB"), (1, "B"))
_SPACE = "\u00a0"  # no line ends between a number and its unit
_LABEL = 50  # characters of a name on an axis
_ANONYMOUS = "(anonymous namespace)"
_SHARED = re.compile(  # what PyTorch's kernels share: namespaces, lambdas, iterators, arrays of pointers
    r"\(anonymous namespace\)::|::operator\(\)\(\)( const)?|::\{lambda\([^()]*\)#\d+\}"
    r"|\(at::TensorIteratorBase&[^()]*\)|, at::detail::Array<char\*, \d+>|at::native::|at::detail::|c10::"
)
_HOVER = 160  # characters of a name in a hover label


def time_unit(largest_ps: int | float) -> tuple[int, str]:
    """Return (picoseconds, name) of the unit in which `largest_ps` reads best."""
    return next((unit for unit in _TIMES if abs(largest_ps) >= unit[0]), _TIMES[-1])


def time_text(time_ps: int | float) -> str:
    """Return a time in its best unit with four significant digits, such as `12.35 µs`."""
    scale, name = time_unit(time_ps)
    return f"{_digits(time_ps / scale)}{_SPACE}{name}" if time_ps else "0"


def size_unit(largest_bytes: int | float) -> tuple[int, str]:
    """Return (bytes, name) of the decimal unit in which `largest_bytes` reads best."""
    return next((unit for unit in _SIZES if abs(largest_bytes) >= unit[0]), _SIZES[-1])


def size_text(size_bytes: int | float) -> str:
    """Return a size in its best decimal unit with four significant digits."""
    scale, name = size_unit(size_bytes)
    return f"{_digits(size_bytes / scale)}{_SPACE}{name}"


def share_text(part: float, whole: float) -> str:
    """Return `part` of `whole` as a percentage."""
    if not whole:
        return f"0{_SPACE}%"
    percent = 100 * part / whole
    if 0 < percent < 0.05:
        return f"under 0.1{_SPACE}%"
    return f"{percent:.{0 if percent >= 10 or not percent else 1}f}{_SPACE}%"


def error_text(error: float, sign: str = "+") -> str:
    """Return a relative error as a signed percentage."""
    return f"{100 * error:{sign}.1f}{_SPACE}%"


def count_text(count: int, what: str) -> str:
    """Return a count with its noun, `1 link` or `2,048 links`."""
    return f"{count:,} {what if count == 1 else what + 's'}"


def _digits(value: float) -> str:
    whole = len(str(int(abs(value))))
    return f"{value:,.{max(0, 4 - whole)}f}".rstrip("0").rstrip(".") if whole < 4 else f"{value:,.0f}"


def short(name: str, length: int = _LABEL) -> str:
    """Return `name` in `length` characters: without what C++ kernels share, then cut in its middle."""
    if len(name) > length:
        name = _telling(name)
    if len(name) <= length:
        return name
    tail = length // 3
    return f"{name[: length - tail - 1]}…{name[-tail:]}"


def _telling(name: str) -> str:
    """Return a C++ kernel's name without its return type, its parameters and the names that surround it."""
    if "::" not in name and "(nccl" not in name:
        return name
    depth = 0
    for at, letter in enumerate(name):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and not depth and at and not name.startswith(_ANONYMOUS, at):
            name = name[:at]
            break
    return _SHARED.sub("", name.removeprefix("void "))


def label(name: str, length: int = _LABEL) -> str:
    """Return a name for a chart's axis: short, and free of the HTML subset that the plotting library renders."""
    return _plain(short(name, length))


def hover(name: str) -> str:
    """Return a name for a chart's hover label, as `label` does."""
    return _plain(short(name, _HOVER))


def _plain(name: str) -> str:
    """Escape what the library takes for markup, entities, or a formula; line ends become spaces."""
    return html.escape(" ".join(name.split()), quote=False).replace("$", "&#36;")
