"""What goes wrong because of what came in. Every message says what was expected, what came and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class TomotifError(ValueError):
    """Base of the errors a user can cause; the command line shows its one line and exits with 2."""


class InputError(TomotifError):
    """A file, or the data in it, cannot be used as it is."""


class UnknownNameError(TomotifError):
    """A structure, class, model or column name that nobody knows.

    Parameters
    ----------
    kind
        What the name should have been, such as ``"structure"``.
    name
        The name that came.
    known
        The names that would have been right.

    Examples
    --------
    >>> print(UnknownNameError("model", "dsrf2d", ["dsrf3d", "motif3d"]))
    unknown model 'dsrf2d'; did you mean 'dsrf3d'? Known: dsrf3d, motif3d
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        super().__init__(f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}")


class RunConflictError(TomotifError):
    """A run folder holds another run than the one asked for."""


class OutputError(TomotifError):
    """The output cannot be written: the place is read-only, missing or full."""
