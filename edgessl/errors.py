"""Everything edgessl raises on purpose.

EdgeSSLError                    exit code 1
+- InputError                   the user's data or argument is at fault
|  +- UnknownNameError          a name that is in no table: lists the table and the nearest name
|  +- OutputExistsError         the output is there already and --overwrite was not given
|  +- MissingExtraError         an optional package is not installed: names the pip line
+- Interrupted                  exit code 130: the user stopped a training; says how to resume
+- EngineError                  an inference engine could not load or run a graph
+- GateError                    exit code 3: a written artefact, or a candidate, failed its bound
|  +- CollapseError             a training whose encoder maps everything to one place, or to a line
+- IntegrityError               exit code 4
   +- BundleError               a bundle is missing, damaged, newer or hostile
   +- CheckpointError           the same for a checkpoint folder
   +- StateError                the same for the state of an adapting encoder
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class EdgeSSLError(Exception):
    """Base of all errors that edgessl raises on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(EdgeSSLError):
    """The user's data or argument is at fault; the message says what to type instead."""


class UnknownNameError(InputError):
    """A name that is in no table."""

    def __init__(self, kind: str, name: str, choices: Iterable[str]) -> None:
        known = sorted(choices)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        shown = known if len(known) <= 20 else [*known[:20], f"... {len(known) - 20} more"]
        super().__init__(f"no {kind} {name!r}{hint} Choose one of: {', '.join(shown)}")
        self.name = name
        self.nearest = near[0] if near else None


class OutputExistsError(InputError):
    """The output is there already."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already; choose another output, or add --overwrite to replace it")


class MissingExtraError(InputError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package!r} is not installed. Install it with: pip install 'edgessl[{extra}]'")
        self.package = package
        self.extra = extra


class Interrupted(EdgeSSLError):  # noqa: N818, nothing went wrong
    """The user stopped long work; the message says how to go on with it."""

    exit_code = 130


class EngineError(EdgeSSLError):
    """An inference engine could not load or run a graph."""


class GateError(EdgeSSLError):
    """A written artefact, or a candidate, failed its bound."""

    exit_code = 3


class CollapseError(GateError):
    """A training whose encoder maps everything to one place, or to a line; the message says how to go on."""


class IntegrityError(EdgeSSLError):
    """Something on disk is not what it was when it was written."""

    exit_code = 4


class BundleError(IntegrityError):
    """A bundle is missing, damaged, newer than this version, or hostile."""


class CheckpointError(IntegrityError):
    """A checkpoint folder is missing, damaged or newer than this version."""


class StateError(IntegrityError):
    """The state of an adapting encoder is damaged or belongs to another bundle."""
