"""Which algorithms there are."""

from ...schemas import UsageError
from . import direct, experts, gets, hierarchical, nvls, ring, sharp, tree
from .plugins import Algorithm, guarded, plugins

ALGORITHMS: dict[tuple[str, str], Algorithm] = {
    ("all_reduce", "ring"): ring.all_reduce,
    ("all_reduce", "tree"): tree.all_reduce,
    ("all_reduce", "nvls"): nvls.all_reduce,
    ("all_reduce", "nvls_tree"): nvls.all_reduce_tree,
    ("all_reduce", "direct"): direct.all_reduce,
    ("all_reduce", "one_shot"): direct.one_shot,
    ("all_reduce", "one_shot_get"): gets.one_shot,
    ("all_reduce", "two_shot_get"): gets.two_shot,
    ("all_reduce", "hierarchical"): hierarchical.all_reduce,
    ("all_reduce", "sharp"): sharp.all_reduce,
    ("all_gather", "ring"): ring.all_gather,
    ("all_gather", "nvls"): nvls.all_gather,
    ("all_gather", "direct"): direct.all_gather,
    ("reduce_scatter", "ring"): ring.reduce_scatter,
    ("reduce_scatter", "nvls"): nvls.reduce_scatter,
    ("reduce_scatter", "direct"): direct.reduce_scatter,
    ("broadcast", "ring"): ring.broadcast,
    ("reduce", "ring"): ring.reduce,
    ("all_to_all", "direct"): direct.all_to_all,
    ("all_to_all", "pairwise"): direct.pairwise,
    ("all_to_all", "hierarchical"): hierarchical.all_to_all,
    ("all_to_allv", "direct"): direct.all_to_all,
    ("all_to_allv", "pairwise"): direct.pairwise,
    ("all_to_allv", "hierarchical"): hierarchical.all_to_all,
    ("dispatch", "direct"): direct.all_to_all,
    ("dispatch", "forwarded"): experts.dispatch,
    ("combine", "direct"): direct.all_to_all,
    ("combine", "forwarded"): experts.combine,
    ("gather", "direct"): direct.gather,
    ("scatter", "direct"): direct.scatter,
    ("send", "direct"): direct.send,
    ("recv", "direct"): direct.recv,
    ("barrier", "ring"): ring.all_reduce,
}
"""By operation and name; an operation's first is its default. A line here is all that a new one takes."""


def names(operation: str) -> list[str]:
    """Return the algorithms of an operation, the default first, users' last; none where it cannot be expanded."""
    return [name for of, name in (*ALGORITHMS, *plugins()) if of == operation]


def operations() -> list[str]:
    """Return the operations that have an algorithm."""
    return sorted({of for of, _ in (*ALGORITHMS, *plugins())})


def algorithm(operation: str, name: str) -> Algorithm:
    """Return an algorithm; a user's own never hides one of these.

    Raises UsageError for a name that is not known, and for a user's function that cannot be imported.
    """
    if (operation, name) in ALGORITHMS:
        return ALGORITHMS[operation, name]
    if (operation, name) in plugins():
        return guarded(plugins()[operation, name])
    raise UsageError(f"{operation} has no algorithm {name!r}; it has {', '.join(names(operation))}")
