"""Which samples of a source an export takes, and what for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgessl.encoders.base import EncoderModule
from edgessl.errors import InputError
from edgessl.export.config import ExportConfig
from edgessl.runtimes.verify import Golden
from edgessl.sources import Source

LEAST = 32  #: samples, so that ten nearest neighbours among the golden ones say something
_GOLDEN_BYTES = 2**25  # frames of a large camera are fewer: they travel with the bundle
_FRAME_BYTES = 2**29  # the same for those that are only looked at here
_FEWEST_GOLDEN = 24


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Samples of a source.

    Attributes:
        golden: With the vectors that PyTorch gives.
        frames: Others `(n, *sample)`, evenly over the source, in its order.
        names: Of `frames`.
        quarantined: Names of those that hold NaN or infinity, and are in neither.
    """

    golden: Golden
    frames: NDArray[Any]
    names: list[str]
    quarantined: list[str] = field(default_factory=list)


def read_samples(source: Source, encoder: EncoderModule, config: ExportConfig) -> Samples:
    """Golden samples and others, both evenly over the source.

    Raises:
        InputError: There are too few, they are all the same, or `strict` and one is not finite.
    """
    size = int(np.prod(encoder.input.shape)) * np.dtype(encoder.input.dtype).itemsize
    most = max(LEAST, _FRAME_BYTES // size)
    wanted = min(max(config.statistics_of(size), 2 * config.calibration) + config.golden, len(source), most)
    indices = np.unique(np.linspace(0, len(source) - 1, wanted).round().astype(int))
    kept, frames = source.read(indices)
    finite = source.spec.finite(frames) if len(kept) else np.ones(0, bool)  # one NaN is in every range and statistic
    bad, kept, frames = [source.names[index] for index in kept[~finite]], kept[finite], frames[finite]
    if bad and config.strict:
        raise InputError(f"{source.name}: {bad[0]} holds NaN or infinity; leave out --strict to go on without it")
    if len(kept) < LEAST:
        broken = f" ({len(bad)} more hold NaN or infinity)" * bool(bad)
        raise InputError(
            f"{source.name} has {len(kept)} readable samples{broken}; export takes at least {LEAST}, better 400"
        )
    if all(np.array_equal(frame, frames[0]) for frame in frames):
        raise InputError(f"{source.name}: all {len(kept)} samples are the same; give samples from where it will work")
    share = max(len(kept) // 3, min(_FEWEST_GOLDEN, len(kept) // 2))
    count = min(config.golden, max(_GOLDEN_BYTES // size, _FEWEST_GOLDEN), share)
    golden = np.linspace(0, len(kept) - 1, count).round().astype(int)
    others = np.setdiff1d(np.arange(len(kept)), golden)
    samples = np.ascontiguousarray(frames[golden])
    return Samples(
        golden=Golden(
            samples=samples, vectors=embedded(encoder, samples), names=[source.names[kept[row]] for row in golden]
        ),
        frames=frames[others],
        names=[source.names[kept[row]] for row in others],
        quarantined=bad,
    )


@torch.no_grad()
def embedded(encoder: EncoderModule, samples: NDArray[Any]) -> NDArray[np.float32]:
    """Vectors `(n, dim)` in PyTorch: what everything else is compared with."""
    parts = np.array_split(samples, -(-len(samples) // 16))
    vectors = [encoder(torch.from_numpy(np.ascontiguousarray(part))) for part in parts]
    return np.ascontiguousarray(torch.cat(vectors).numpy())
