"""A bundle in the making: files as they are written, judged in their engine before they stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import Artefact, Bundle, Kind
from edgessl.errors import EngineError
from edgessl.runtimes.verify import Golden, ParityRow, encoder_row, trunk_row
from edgessl.signals import InputSpec

Floats = NDArray[np.float32]
_TRUNK = 32  # golden samples for trunk and tail: the encoder's own nodes, cut in two


@dataclass
class Draft:
    """What is there so far.

    Attributes:
        folder: Holds the files.
        golden: What graphs are judged on.
        manifest: Grows; what a graph needs to run (`split`) is there from the start.
        kinds: path -> what it is, for all that stays.
        parity: Rows of the graphs that stay.
        vectors: Of the golden samples, by graph.
        rejected: "engine precision" -> why it was left out.
        unseen: Samples that are neither golden nor calibrated on: they tell whether a form that was searched for holds.
    """

    folder: Path
    golden: Golden
    input: InputSpec
    dim: int
    manifest: dict[str, Any]
    kinds: dict[str, Kind] = field(default_factory=dict)
    parity: list[ParityRow] = field(default_factory=list)
    vectors: dict[str, Floats] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    unseen: NDArray[Any] = field(default_factory=lambda: np.empty(0))

    def bundle(self, more: Mapping[str, Kind] | None = None) -> Bundle:
        """The files as a bundle, and `more` that may not stay; nothing is hashed.

        What is asked for is found in `more` first: it may be another form of what stays.
        """
        kinds = {**(more or {}), **{path: kind for path, kind in self.kinds.items() if path not in (more or {})}}
        artefacts = tuple(
            Artefact(path=path, **kind._asdict(), sha256="", size_bytes=0) for path, kind in kinds.items()
        )
        return Bundle(
            path=self.folder,
            manifest=self.manifest,
            artefacts=artefacts,
            input=self.input,
            dim=self.dim,
            space_id=str(self.manifest["space_id"]),
        )

    def judge(self, files: Mapping[str, Kind], engine: str) -> tuple[list[ParityRow], dict[str, Floats]]:
        """Open graphs in `engine` and replay the golden samples; the vectors of encoders come by file.

        Raises:
            EngineError: It cannot load or run one.
        """
        bundle = self.bundle(files)
        rows, vectors = [], {}
        for path, kind in files.items():
            if kind.role == "encoder":
                row, vectors[path] = encoder_row(bundle, engine, kind.precision, self.golden, batch=kind.batch)
            elif kind.role == "trunk":
                row, _ = trunk_row(bundle, engine, kind.precision, self.golden.first(_TRUNK))
            else:
                continue
            rows.append(row)
        return rows, vectors

    def accept(self, files: Mapping[str, Kind], rows: list[ParityRow], vectors: Mapping[str, Floats]) -> None:
        """Keep files that were judged."""
        self.kinds |= files
        self.parity += rows
        self.vectors |= vectors

    def reject(self, files: Mapping[str, Kind], name: str, reason: str) -> None:
        """Take files away, whether they were kept or not, and remember why."""
        for path in files:
            (self.folder / path).unlink(missing_ok=True)
            self.kinds.pop(path, None)
            self.vectors.pop(path, None)
        self.parity = [row for row in self.parity if row.file not in files]
        self.rejected[name] = reason


def failures(rows: list[ParityRow]) -> str:
    """Why graphs fail their bound; empty when they pass."""
    return "; ".join(row.describe() for row in rows if not row.ok)


def judged_or_reason(
    draft: Draft, files: Mapping[str, Kind], engine: str
) -> tuple[list[ParityRow], dict[str, Floats], str]:
    """`Draft.judge`, with an engine that refuses the graph as one more reason to leave it out."""
    try:
        rows, vectors = draft.judge(files, engine)
    except EngineError as error:
        return [], {}, str(error)
    return rows, vectors, failures(rows)
