"""Which constants of encoder and trunk take ports in, found by walking the graph, and checked in its engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgessl.bundle import Bundle, Kind
from edgessl.errors import BundleError, EngineError
from edgessl.export.constants import constants_in, near_enough
from edgessl.export.draft import Draft
from edgessl.export.graphs import Graphs, convolutions
from edgessl.metrics import Vectors
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.fold import Fold, recorded
from edgessl.runtimes.port import Port
from edgessl.runtimes.split import Tail, Trunk

_SAMPLES = 32


def record_fold(
    draft: Draft, graphs: Graphs, forms: Mapping[str, onnx.ModelProto], files: Mapping[str, Kind], engine: str
) -> None:
    """Note in the manifest's `split.folds` how encoder and trunk among `files` take ports in; nothing where they cannot.

    The encoder takes all of them in; the trunk those that mix channels, which are no inputs of it.

    Args:
        draft: Holds the files, judged; those of fp32 for onnxruntime first.
        graphs: The fp32 graphs.
        forms: Role -> what the file holds, before it was converted to the engine's own format.
        files: Encoder, trunk, and what belongs to them.
        engine: That opens them.
    """
    behind = convolutions(graphs.trunk, len(draft.manifest["split"]["ports"]))
    chosen = {
        path: kind for path, kind in files.items() if kind.role in ("encoder", "trunk") and not kind.batch and behind
    }
    mixing = any(port["products"] for port in draft.manifest["split"]["ports"])
    folds = draft.manifest["split"].setdefault("folds", {})
    for path, kind in sorted(chosen.items(), key=lambda entry: entry[1].role):  # the trunk's needs the encoder's
        if kind.role == "trunk" and not mixing:
            continue
        found = [constants_in(draft, path, forms[kind.role], name) for name in behind]
        if all(found):
            folds[path] = [asdict(one) for one in found if one]
            if not (_agrees if kind.role == "encoder" else _agrees_mixed)(draft, kind.precision, engine):
                del folds[path]
    if not folds:
        del draft.manifest["split"]["folds"]


def _agrees(draft: Draft, precision: str, engine: str) -> bool:
    """Whether the folded encoder does what trunk, ports and tail do, with ports that move something."""
    bundle, frames = draft.bundle(), draft.golden.samples[:_SAMPLES]
    options: dict[str, Any] = {"engine": engine, "precision": precision}
    with Trunk(bundle, **options) as trunk, Tail(bundle, engine=engine) as tail:
        ports = probe_ports(trunk, frames)
        wanted = tail.run(trunk.run(frames, ports).latents)
    try:
        plain, folded = (_embedded(draft, bundle, options, each) for each in (None, ports))
    except (BundleError, EngineError):  # another form of the constants than the walk took them for
        return False
    return near_enough(wanted, folded, plain, precision)


def _agrees_mixed(draft: Draft, precision: str, engine: str) -> bool:
    """Whether encoder and trunk do what the fp32 encoder does, with ports that mix channels."""
    bundle, frames = draft.bundle(), draft.golden.samples[:_SAMPLES]
    options: dict[str, Any] = {"engine": engine, "precision": precision}
    float_form: dict[str, Any] = {"engine": "onnxruntime", "precision": "fp32"}
    if any(not recorded(bundle, "encoder", **each) for each in (options, float_form)):
        return False
    with Trunk(bundle, **float_form) as trunk:
        ports = probe_ports(trunk, frames, mixed=True)
    try:
        wanted = _embedded(draft, bundle, float_form, ports)
        plain, folded = (_embedded(draft, bundle, options, each) for each in (None, ports))
        with Trunk(bundle, **options, ports=ports) as trunk, Tail(bundle, engine=engine) as tail:
            halves = tail.run(trunk.run(frames, ports).latents)
    except (BundleError, EngineError):
        return False
    return all(near_enough(wanted, given, plain, precision) for given in (folded, halves))


def _embedded(draft: Draft, bundle: Bundle, options: dict[str, Any], ports: list[Port] | None) -> Vectors:
    constants = Fold(bundle, **options).constants(ports)
    with Encoder(bundle, **options, constants=constants) as encoder:
        return encoder.embed(draft.golden.samples[:_SAMPLES])


def probe_ports(trunk: Trunk, frames: NDArray[Any], seed: int = 0, *, mixed: bool = False) -> list[Port]:
    """Ports that move what passes them: gains of 0.7 to 1.4, shifts of a fifth of the channel's spread.

    `mixed`: where the trunk reports products, a twentieth of each channel leaks into each other as well, by their spreads.
    """
    rng = np.random.default_rng(seed)
    seen = trunk.run(frames, trunk.identity)
    ports = []
    for index, (mean, square) in enumerate(zip(seen.means, seen.squares, strict=True)):
        spread = np.sqrt(np.maximum(square.mean(0) - mean.mean(0) ** 2, 0))
        scale = np.exp(rng.uniform(np.log(0.7), np.log(1.4), len(spread)))
        if mixed and index in seen.products:
            leak = rng.normal(0, 0.2 / np.sqrt(len(spread)), (len(spread), len(spread)))
            scale = np.diag(scale) + leak * spread[:, None] / np.maximum(spread, 1e-6)
        ports.append((scale.astype(np.float32), (rng.normal(0, 0.2, len(spread)) * spread).astype(np.float32)))
    return ports
