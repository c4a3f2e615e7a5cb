"""The first convolution, in every graph that has it: which constants take a map of its patches in, checked in the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from edgessl.bundle import Kind
from edgessl.encoders.camera import Resize
from edgessl.errors import BundleError, EngineError
from edgessl.export.constants import constants_in, near_enough
from edgessl.export.draft import Draft
from edgessl.export.graphs import Graphs
from edgessl.export.split import Split
from edgessl.runtimes.constants import ConvConstants
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.prepare import prepared
from edgessl.runtimes.spectrum import frame_spectra
from edgessl.runtimes.split import Tail, Trunk
from edgessl.runtimes.stem import PatchMap, Stem

Arrays = dict[str, NDArray[Any]]
_SAMPLES = 32
_AT_ONCE = 64  # frames whose spectra are taken together


def note_stem(draft: Draft, split: Split, graphs: Graphs) -> None:
    """Put `split.stem` into the manifest, without constants yet, where the encoder begins with a plain convolution of images."""
    stem = stem_of(split)
    if stem is None:
        return
    weight = stem.weight.detach().numpy()
    stored = {entry.name: entry for entry in graphs.encoder.graph.initializer}
    for node in graphs.encoder.graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and node.input[1] in stored:
            held = numpy_helper.to_array(stored[node.input[1]])
            if held.shape == weight.shape and np.array_equal(held, weight):
                resized = ["rows", "columns"] if split.encoder.resize is not None else []
                draft.manifest["split"]["stem"] = {
                    "node": node.name,
                    "kernel": [int(size) for size in weight.shape[2:]],
                    "prepare": ["mean", "std", *resized],
                    "constants": {},
                }
                return


@torch.no_grad()
def stem_of(split: Split) -> nn.Conv2d | None:
    """The convolution that reads the prepared images as they are; None where there is none, or one in groups or with holes."""
    encoder, found = split.encoder, list[nn.Conv2d]()
    if encoder.input.kind != "image":
        return None
    images = encoder.normalize(encoder.prepare(encoder.blank(2)))

    def reads(module: nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Conv2d) and isinstance(given[0], Tensor) and given[0] is images:
            found.append(module)

    hooks = [module.register_forward_pre_hook(reads) for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    try:
        encoder.stages[0](images)
    finally:
        for hook in hooks:
            hook.remove()
    if len(found) != 1 or found[0].groups != 1 or set(found[0].dilation) != {1}:
        return None
    return found[0]


def record_stem(
    draft: Draft, graphs: Graphs, forms: Mapping[str, onnx.ModelProto], files: Mapping[str, Kind], engine: str
) -> None:
    """Note in `split.stem.constants` how encoder and trunk among `files` take a map in; nothing where they cannot.

    Args:
        draft: Holds the files, judged; those of fp32 for onnxruntime first.
        graphs: The fp32 graphs.
        forms: Role -> what the file holds, before it was converted to the engine's own format.
        files: Encoder, trunk, and what belongs to them.
        engine: That opens them.
    """
    facts = draft.manifest["split"].get("stem")
    if facts is None:
        return
    noted: dict[str, ConvConstants] = {}
    for path, kind in files.items():
        if kind.role in ("encoder", "trunk") and not kind.batch:
            found = constants_in(draft, path, forms[kind.role], facts["node"])
            if found is None:
                return
            noted[path] = found
    reference = _weights(graphs.encoder, facts["node"])
    facts["constants"] |= {path: asdict(one) | {"units": [1.0] * reference.shape[1]} for path, one in noted.items()}
    precision = next(kind.precision for path, kind in files.items() if path in noted)
    try:
        for path in noted:
            facts["constants"][path]["units"] = _units(draft, path, files[path], engine, reference)
        agrees = _agrees(draft, precision, engine)
    except (BundleError, EngineError):  # another form of the constants than the walk took them for
        agrees = False
    if not agrees:
        for path in noted:
            del facts["constants"][path]


def source_spectrum(split: Split, frames: NDArray[Any]) -> Arrays:
    """What the source's frames look like to the first convolution, and how they are prepared for it."""
    encoder = split.encoder
    source: Arrays = {f"prepare.{part}": getattr(encoder, part).numpy().reshape(-1) for part in ("mean", "std")}
    if isinstance(encoder.resize, Resize):
        source |= {f"prepare.{part}": weights for part, weights in encoder.resize.matrices().items()}
    count, (height, width) = len(frames), encoder.normalize(encoder.prepare(encoder.blank(1))).shape[2:]

    def images() -> Iterator[NDArray[np.float32]]:
        """Made again for each look: all of them at once would be most of what an export holds."""
        for start in range(0, count, _AT_ONCE):
            yield prepared(frames[start : start + _AT_ONCE], source)

    total, products = np.zeros(3), np.zeros((3, 3))
    for part in images():
        total += part.sum((0, 2, 3), dtype=np.float64)
        products += np.einsum("nchw,ndhw->cd", part, part, optimize=True)
    pixels = count * height * width
    axes = np.linalg.eigh(products / pixels - np.outer(total, total) / pixels**2)[1].T[::-1]
    seen = [frame_spectra(part, axes) for part in images()]
    means = np.concatenate([each for each, _ in seen])
    return source | {
        "spectrum.axes": axes,
        "spectrum.mean": means.mean(0),
        "spectrum.var": means.var(0),
        "spectrum.power": np.sum([power for _, power in seen], 0) / count,
        "spectrum.size": np.array([height, width], np.float32),
    }


def _weights(model: onnx.ModelProto, name: str) -> NDArray[np.float32]:
    node = next(node for node in model.graph.node if node.name == name)
    entry = next(entry for entry in model.graph.initializer if entry.name == node.input[1])
    return numpy_helper.to_array(entry)


def _units(draft: Draft, path: str, kind: Kind, engine: str, reference: NDArray[np.float32]) -> list[float]:
    """Of each channel, what the graph's convolution reads over what the encoder's own reads: an engine may have moved a gain."""
    bundle = draft.bundle({path: kind})
    held = Stem(bundle, kind.role, engine=engine, precision=kind.precision).weight()
    if held.shape != reference.shape:
        raise BundleError(f"the first convolution of {path} is {held.shape}, not {reference.shape}")
    along = np.einsum("ocyx,ocyx->c", held, reference), np.einsum("ocyx,ocyx->c", held, held)
    return [float(round(unit, 9)) for unit in along[0] / np.maximum(along[1], 1e-30)]


def _agrees(draft: Draft, precision: str, engine: str) -> bool:
    """Whether encoder and trunk with a map in them do what the fp32 encoder does with it."""
    bundle, frames = draft.bundle(), draft.golden.samples[:_SAMPLES]
    kernel = bundle.manifest["split"]["stem"]["kernel"]
    patch = probe_map(3, int(np.prod(kernel)))
    options: dict[str, Any] = {"engine": engine, "precision": precision}

    def vectors(**given: Any) -> NDArray[np.float32]:
        constants = Stem(bundle, "encoder", **given).constants(patch)
        with Encoder(bundle, **given, constants=constants) as encoder:
            return encoder.embed(frames)

    wanted = vectors(engine="onnxruntime", precision="fp32")
    with Encoder(bundle, **options) as plain:
        unmoved = plain.embed(frames)
    with Trunk(bundle, **options, patch=patch) as trunk, Tail(bundle, engine=engine) as tail:
        halves = tail.run(trunk.run(frames, trunk.identity).latents)
    return all(near_enough(wanted, given, unmoved, precision) for given in (vectors(**options), halves))


def probe_map(channels: int, positions: int, seed: int = 0) -> PatchMap:
    """A map that moves what passes it: a gain per colour, neighbours that leak into each other, and a shift."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(channels, channels)))[0]
    leak = rng.normal(0, 0.05 / np.sqrt(positions), (channels, positions, positions))
    blocks = np.eye(positions) * rng.uniform(0.8, 1.25, (channels, 1, 1)) + leak
    shift = np.broadcast_to(rng.normal(0, 0.05, (channels, 1)), (channels, positions))
    return PatchMap(axes=axes.astype(np.float32), blocks=blocks.astype(np.float32), shift=shift.astype(np.float32))
