"""What a bundle needs besides graphs that embed: statistics of the source, and the training step of its tail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from edgessl.bundle import Kind
from edgessl.errors import GateError
from edgessl.export.config import ExportConfig
from edgessl.export.draft import Draft
from edgessl.export.objectives import Source
from edgessl.export.split import Split
from edgessl.export.statistics import source_statistics
from edgessl.export.stem import source_spectrum
from edgessl.export.tail import write_tail
from edgessl.export.train_step import Step, step_facts, step_parity, write_step
from edgessl.runtimes.split import Observed, Tail, Trunk
from edgessl.runtimes.stem import filters

ENGINE = "onnxruntime"
_AT_ONCE = 64  # frames whose products are taken together
PORT_BOUND = 1e-3  #: largest difference of a latent or statistic, over the largest of them


def write_live_tail(split: Split, draft: Draft) -> None:
    """`tail.onnx` and its factory weights."""
    write_tail(split, draft.folder / "tail.onnx")
    weights = {f"weight.{name}": value.contiguous().numpy() for name, value in split.tail_weights().items()}
    save_file(weights, draft.folder / "tail.safetensors")
    draft.kinds |= {"tail.onnx": Kind("tail", "fp32"), "tail.safetensors": Kind("weights")}


def check_ports(split: Split, draft: Draft) -> None:
    """Compare latents and statistics of the fp32 trunk with PyTorch, with ports that move something.

    Raises:
        GateError: One of them differs.
    """
    frames = draft.golden.samples[:4]
    rng = np.random.default_rng(0)
    ports = [
        (rng.normal(1, 0.1, one.shape).astype(np.float32), rng.normal(0, 0.1, one.shape).astype(np.float32))
        for one in split.identity_ports()[::2]
    ]
    with Trunk(draft.bundle(), engine=ENGINE, precision="fp32") as trunk:
        given = trunk.run(frames, ports)
    with torch.no_grad():
        wanted = split.trunk(torch.from_numpy(frames), *(torch.from_numpy(each) for port in ports for each in port))
    got = {"latents": given.latents} | {f"port{index}.products": each for index, each in given.products.items()}
    for part, statistics in {"mean": given.means, "square": given.squares}.items():
        got |= {f"port{index}.{part}": each for index, each in enumerate(statistics)}
    references = dict(zip(("latents", *split.statistic_names()), wanted, strict=True))
    for name, mine in got.items():
        theirs = references[name]
        off = np.abs(mine - theirs.numpy()).max() / (np.abs(theirs.numpy()).max() + 1e-12)
        if not off <= PORT_BOUND:  # NaN is not below
            raise GateError(
                f"trunk.fp32.onnx: {name} differs from PyTorch's by {off:.2g} of the largest (at most {PORT_BOUND})"
            )


def write_adaptation(split: Split, draft: Draft, frames: NDArray[Any], config: ExportConfig) -> None:
    """Source statistics, on the trunk that will serve so that quantization is not seen as drift; and the step.

    Args:
        split: The encoder.
        draft: Gets the files; has the graphs of onnxruntime.
        frames: `(n, *sample)`, of which `config.statistics_of` them are looked at, evenly.
        config: What to write.

    Raises:
        GateError: A training step in the engine is not what it is in PyTorch.
    """
    bundle = draft.bundle()
    precision = bundle.precisions("trunk", ENGINE)[0]
    count = min(config.statistics_of(frames[0].nbytes), len(frames))
    frames = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    with Trunk(bundle, engine=ENGINE, precision=precision) as trunk, Tail(bundle, engine=ENGINE) as tail:
        observed, products = _observed(trunk, frames)
        vectors = tail.run(observed.latents)
    anchors = np.linspace(0, len(frames) - 1, min(config.anchors, len(frames))).round().astype(int)
    source = source_statistics(observed, products, vectors, anchors, channel_axis=split.encoder.channel_axis)
    if draft.manifest["split"].get("stem"):
        spectrum = source_spectrum(split, frames)
        source |= {name: np.ascontiguousarray(value, np.float32) for name, value in spectrum.items()}
    if filters(bundle):
        _write_rehearsal(draft, frames, config)
    save_file(source, draft.folder / "source.safetensors")
    draft.kinds["source.safetensors"] = Kind("source")
    statistics = Source(
        mean=torch.from_numpy(source["embedding.mean"]), std=torch.from_numpy(source["embedding.var"] + 1e-8).sqrt()
    )
    step = Step(split, config.step, statistics)
    write_step(step, draft.folder / "step.onnx")
    draft.kinds["step.onnx"] = Kind("step", "fp32")
    latents = observed.latents[: 4 * config.step.batch]
    draft.manifest["step"] = step_facts(step) | {
        "parity": step_parity(step, draft.folder / "step.onnx", ENGINE, latents)
    }


def _write_rehearsal(draft: Draft, frames: NDArray[Any], config: ExportConfig) -> None:
    """Frames that the device disturbs as its own are, evenly over the source."""
    count = min(config.rehearsed(frames[0].nbytes), len(frames))
    if count:
        chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
        save_file({"frames": np.ascontiguousarray(frames[chosen])}, draft.folder / "rehearsal.safetensors")
        draft.kinds["rehearsal.safetensors"] = Kind("rehearsal")


def _observed(trunk: Trunk, frames: NDArray[Any]) -> tuple[Observed, dict[int, NDArray[np.float64]]]:
    """What the trunk makes of all frames, and of ports that may mix channels the products' mean over the frames.

    Products of many frames at once would be most of what an export holds.
    """
    seen, sums = [], dict[int, NDArray[np.float64]]()
    for start in range(0, len(frames), _AT_ONCE):
        part = trunk.run(frames[start : start + _AT_ONCE], trunk.identity)
        for index, products in part.products.items():
            sums[index] = sums.get(index, 0) + products.sum(0, dtype=np.float64)
        seen.append(replace(part, products={}))
    return Observed(
        latents=np.concatenate([part.latents for part in seen]),
        means=tuple(map(np.concatenate, zip(*(part.means for part in seen), strict=True))),
        squares=tuple(map(np.concatenate, zip(*(part.squares for part in seen), strict=True))),
    ), {index: total / len(frames) for index, total in sums.items()}
