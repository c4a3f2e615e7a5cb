"""Where vectors go: files, an index, standard output.

A new form of file is a file here with a function `(path, held) -> None`, and one line in `FORMS`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from edgessl.errors import InputError, MissingExtraError
from edgessl.runtimes.sinks.base import COLUMNS, Held, InMemory, Rows, Sink, Space, Tally

__all__ = [
    "COLUMNS",
    "FORMS",
    "STDOUT",
    "Held",
    "InMemory",
    "Rows",
    "Sink",
    "Space",
    "Tally",
    "Writer",
    "is_folder",
    "writer_for",
]

#: Typed for JSON lines on standard output.
STDOUT = Path("-")

#: ending -> (module, function that writes it, package that it needs, extra that brings it)
FORMS = {
    ".npz": ("edgessl.runtimes.sinks.npz", "write_npz", "numpy", ""),
    ".parquet": ("edgessl.runtimes.sinks.parquet", "write_parquet", "pyarrow", "logs"),
    ".jsonl": ("edgessl.runtimes.sinks.jsonl", "write_jsonl", "json", ""),
    ".index": ("edgessl.runtimes.sinks.index", "write_index", "usearch", "index"),
}

Writer = Callable[[Path, Held], None]


def writer_for(output: Path) -> Writer:
    """What writes `output`, by its ending; call it before long work.

    Raises:
        InputError: There is no such form.
        MissingExtraError: Its package is not installed.
    """
    if output.suffix.lower() not in FORMS:
        forms = ", ".join(FORMS)
        raise InputError(
            f"{output} ends in {output.suffix!r}, which is no form of output; choose one of {forms}, or - for JSON lines on "
            "standard output"
        )
    module, function, package, extra = FORMS[output.suffix.lower()]
    if find_spec(package) is None:  # looked for, not imported: there is long work to do first
        raise MissingExtraError(package, extra)
    writer: Writer = getattr(import_module(module), function)
    return writer


def is_folder(output: Path) -> bool:
    """Whether what is written there is a folder."""
    return output.suffix.lower() == ".index"
