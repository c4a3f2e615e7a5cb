"""Two bundles side by side: what differs, and whether vectors of one may be compared with vectors of the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgessl.bundle import Artefact, Bundle, open_bundle
from edgessl.metrics import cosines, knn_overlap
from edgessl.runtimes.encoder import Encoder, engine_name
from edgessl.runtimes.verify import BOUNDS

#: What differs from export to export and says nothing about the encoder.
VOLATILE = ("created", "measured")
TENSORS = ("weights", "source", "golden")

_ELSEWHERE = (
    "artefacts",
    "parity",
    "sha256",
)  # compared file by file, side by side, and not at all: it is over the rest
_FIGURES = ("min_cosine", "mean_cosine", "knn_overlap")

#: One line: what it is about, and the two sides; None where a side has nothing.
Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class VectorsDifference:
    """The two encoders on the same samples.

    Attributes:
        samples: How many.
        ran: The graphs ran here; else these are the fp32 vectors that the bundles hold.
        precisions: Of what was compared.
        min_cosine, mean_cosine: Of the vectors; None where their lengths differ.
        knn_overlap: Share of the 10 nearest neighbours that are the same.
        agree: As two graphs of one space must, by the bound of the coarser precision.
    """

    samples: int
    ran: bool
    precisions: tuple[str, str]
    min_cosine: float | None
    mean_cosine: float | None
    knn_overlap: float
    agree: bool


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What differs between `a` and `b`.

    Attributes:
        space_ids: Of both.
        mixing: Whether vectors may be mixed, and why.
        may_mix: The same, short.
        vectors: The encoders on shared samples; None where none are shared.
        facts: Of the manifests.
        volatile: Facts and files that differ between any two exports.
        artefacts: Files that were added, removed or changed, with their sizes.
        tensors: Arrays that were added, removed, reshaped or changed, with the largest absolute difference.
        parity: The figures of every graph that either measured.
    """

    a: str
    b: str
    space_ids: tuple[str, str]
    may_mix: bool
    mixing: str
    vectors: VectorsDifference | None
    facts: list[Line]
    volatile: list[Line]
    artefacts: list[Line]
    tensors: list[Line]
    parity: list[Line]

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def difference(a: Path, b: Path, *, run: bool = False, engine: str = "auto", threads: int = 0) -> Difference:
    """Compare two bundles.

    Args:
        a, b: The bundles.
        run: Embed the golden samples of both with both, where they take the same input; else the vectors they hold are
            compared, where they hold the same samples.
        engine: What runs.
        threads: Threads per run; 0 lets the engine choose.

    Raises:
        BundleError: One of them is damaged.
        EngineError: One of them cannot be run.
    """
    first, second = open_bundle(a), open_bundle(b)
    vectors = _embedded(first, second, engine_name(engine), threads) if run else _stored(first, second)
    may_mix, mixing = _verdict(first, second, vectors)
    facts = _facts(first.manifest, second.manifest)
    files = _artefacts(first.artefacts, second.artefacts)
    return Difference(
        a=str(a),
        b=str(b),
        space_ids=(first.space_id, second.space_id),
        may_mix=may_mix,
        mixing=mixing,
        vectors=vectors,
        facts=[line for line in facts if line["what"].partition(".")[0] not in VOLATILE],
        volatile=[line for line in facts if line["what"].partition(".")[0] in VOLATILE]
        + [line for line in files if line["role"] == "report"],
        artefacts=[line for line in files if line["role"] != "report"],
        tensors=[line for role in TENSORS for line in _tensors(role, first.tensors(role), second.tensors(role))],
        parity=_parity(first.manifest.get("parity", {}), second.manifest.get("parity", {})),
    )


def flattened(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as `a.b` and value; a list is a value."""
    for key, value in facts.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _facts(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Line]:
    one, two = ({key: value for key, value in facts.items() if key not in _ELSEWHERE} for facts in (a, b))
    first, second = dict(flattened(one)), dict(flattened(two))
    return [
        {"what": key, "a": first.get(key), "b": second.get(key)}
        for key in dict.fromkeys((*first, *second))
        if key not in first or key not in second or first[key] != second[key]
    ]


def _artefacts(a: tuple[Artefact, ...], b: tuple[Artefact, ...]) -> list[Line]:
    first, second = ({artefact.path: artefact for artefact in side} for side in (a, b))
    lines = []
    for path in sorted({*first, *second}):
        old, new = first.get(path), second.get(path)
        if old and new and old == new:
            continue
        there = new or old
        lines.append(
            {
                "what": path,
                "role": there.role if there else "",
                "change": "changed" if old and new else "added" if new else "removed",
                "a": old.size_bytes if old else None,
                "b": new.size_bytes if new else None,
            }
        )
    return lines


def _tensors(role: str, a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]]) -> Iterator[Line]:
    for name in sorted({*a, *b}):
        if name not in a or name not in b:
            change, apart = ("added" if name in b else "removed"), None
        elif a[name].shape != b[name].shape:
            change, apart = "reshaped", None
        elif np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f" == b[name].dtype.kind):
            continue
        else:
            apart = float(np.abs(a[name].astype(np.float64) - b[name].astype(np.float64)).max())
            change, apart = "changed", apart if np.isfinite(apart) else None
        shapes = {"a": list(a[name].shape) if name in a else None, "b": list(b[name].shape) if name in b else None}
        yield {"what": f"{role} {name}", "change": change, **shapes, "max_abs": apart}


def _parity(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Line]:
    return [
        {"what": f"{file} {figure}", "a": a.get(file, {}).get(figure), "b": b.get(file, {}).get(figure)}
        for file in dict.fromkeys((*a, *b))
        for figure in _FIGURES
        if figure in a.get(file, {}) or figure in b.get(file, {})
    ]


def _stored(a: Bundle, b: Bundle) -> VectorsDifference | None:
    first, second = (bundle.tensors("golden", "samples", "vectors") for bundle in (a, b))
    if not np.array_equal(first["samples"], second["samples"]):
        return None
    return _compared(first["vectors"], second["vectors"], ran=False, precisions=("fp32", "fp32"))


def _embedded(a: Bundle, b: Bundle, engine: str, threads: int) -> VectorsDifference | None:
    if (a.input.shape, a.input.dtype) != (b.input.shape, b.input.dtype):
        return None
    samples = np.concatenate([bundle.tensors("golden", "samples")["samples"] for bundle in (a, b)])
    _, once = np.unique(samples.reshape(len(samples), -1), axis=0, return_index=True)
    samples = samples[np.sort(once)]
    vectors, precisions = [], []
    for bundle in (a, b):
        precision = next(iter(bundle.precisions("encoder", engine)), "fp32")
        with Encoder(bundle, engine=engine, precision=precision, threads=threads) as encoder:
            vectors.append(encoder.embed(samples))
        precisions.append(precision)
    return _compared(vectors[0], vectors[1], ran=True, precisions=(precisions[0], precisions[1]))


def _compared(
    a: NDArray[np.floating], b: NDArray[np.floating], *, ran: bool, precisions: tuple[str, str]
) -> VectorsDifference:
    overlap = knn_overlap(a, b, 10)
    least = mean = None
    agree = a.shape == b.shape
    if agree:
        similar = cosines(a, b)
        least, mean = float(similar.min()), float(similar.mean())
        bounds = [BOUNDS[precision] for precision in precisions]
        agree = (
            least >= min(bound.min_cosine for bound in bounds)
            and mean >= min(bound.mean_cosine or bound.min_cosine for bound in bounds)
            and overlap >= min(bound.knn_overlap for bound in bounds)
        )
    return VectorsDifference(
        samples=len(a),
        ran=ran,
        precisions=precisions,
        min_cosine=least,
        mean_cosine=mean,
        knn_overlap=overlap,
        agree=agree,
    )


def _verdict(a: Bundle, b: Bundle, vectors: VectorsDifference | None) -> tuple[bool, str]:
    same = a.space_id == b.space_id
    if vectors is None:
        seen = "no sample was embedded by both"
    elif vectors.mean_cosine is None:
        seen = f"vectors of {a.dim} and {b.dim} numbers"
    else:
        seen = f"mean cosine {vectors.mean_cosine:.4f} on {vectors.samples} shared samples"
    revisions = [bundle.manifest.get("space_revision", 0) for bundle in (a, b)]
    if same and revisions[0] != revisions[1] and vectors is not None and not vectors.agree:
        return False, (
            f"no: revisions {revisions[0]} and {revisions[1]} of one space, {a.space_id}, whose vectors differ ({seen}); "
            "measure the recall of new vectors on the old map before they are mixed"
        )
    if same and vectors is not None and not vectors.agree:
        return False, f"no: both say {a.space_id}, but their vectors differ ({seen}); one of them is not what it says"
    if same:
        return True, f"yes: one space, {a.space_id} ({seen})"
    close = "; the vectors agree, but only the space id promises that" if vectors is not None and vectors.agree else ""
    return False, f"no: two spaces, {a.space_id} and {b.space_id} ({seen}{close})"
