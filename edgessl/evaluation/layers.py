"""Where in an encoder the labels can be read best: which stage to cut at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgessl.encoders import EncoderModule
from edgessl.evaluation.probes import PROBE_C, Labels, linear_probe, standardised
from edgessl.metrics import Vectors

POOL = "pool"


@dataclass(frozen=True, kw_only=True)
class Layers:
    """What each stage of an encoder says about the labels.

    Attributes:
        names: `stage 0` and so on, then `pool`: the embedding before it is made a unit vector.
        weights: Share of each in the gated probe; they add up to 1.
        accuracies: Of a linear probe on each alone.
        gated: Accuracy of the gated probe.
        best: The one whose own probe is best; the earliest of equals.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    accuracies: tuple[float, ...]
    gated: float
    best: str

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {key: list(each) if isinstance(each, tuple) else each for key, each in asdict(self).items()}


def stage_vectors(encoder: EncoderModule) -> Callable[[NDArray[Any]], list[Vectors]]:
    """Frames `(batch, *sample)` -> the mean over places or tokens of every stage, then what the pool gives.

    Args:
        encoder: In eval mode, wherever it lives.
    """
    device = encoder.mean.device

    @torch.inference_mode()
    def embed(frames: NDArray[Any]) -> list[Vectors]:
        latent = encoder.normalize(encoder.prepare(torch.from_numpy(encoder.input.check(frames)).to(device)))
        found: list[Tensor] = []
        for stage in encoder.stages:
            latent = stage(latent)
            flat = latent if latent.ndim == 2 else latent.movedim(encoder.channel_axis, 1).flatten(2).mean(2)
            found.append(flat)
        found.append(encoder.pool(latent))
        return [np.asarray(each.float().cpu().numpy(), np.float32) for each in found]

    return embed


def gated_probe(
    bank: Sequence[Vectors], bank_labels: Labels, queries: Sequence[Vectors], labels: Labels, *, steps: int = 200
) -> Layers:
    """Probe every stage alone, and all together behind a gate whose weights say where the information lives.

    Convex gated probing, after the idea of the method of that name: layers are mixed by weights that a softmax makes
    positive with sum 1, learned with the classifier. The rest is ours: vectors are pooled and standardised, each stage has
    a linear map of its own, since stages differ in width, and the logits are mixed, where the original mixes tokens and
    asks prototypes. The maps have the linear probe's L2 penalty, in proportion to their gates: then the loss is convex in
    the gates and the gated maps together, which it would not be with the plain penalty, and one gate would take all.

        logits = sum_l softmax(a)_l W_l x_l + b,  loss = cross entropy + sum_l softmax(a)_l |W_l|^2 / (2 C n)

    Args:
        bank, bank_labels: One `(n, width)` per stage, last the pool's; classes `(n,)`.
        queries, labels: One `(m, width)` per stage; classes `(m,)`.
        steps: Iterations of L-BFGS, at most.
    """
    scaled = [standardised(one, one, other) for one, other in zip(bank, queries, strict=True)]
    known, wanted = ([torch.from_numpy(pair[side]).double() for pair in scaled] for side in (0, 1))
    target = torch.from_numpy(np.asarray(bank_labels, np.int64))
    classes = int(target.max()) + 1
    gates = torch.zeros(len(known), dtype=torch.float64, requires_grad=True)
    maps = [torch.zeros(each.shape[1], classes, dtype=torch.float64, requires_grad=True) for each in known]
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)

    def logits(stages: list[Tensor]) -> Tensor:
        shares = gates.softmax(0)
        return torch.stack([shares[place] * (x @ maps[place]) for place, x in enumerate(stages)]).sum(0) + bias

    optimizer = torch.optim.LBFGS([gates, *maps, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        sizes = torch.stack([(each**2).sum() for each in maps])
        penalty = (gates.softmax(0) * sizes).sum() / (2 * PROBE_C * len(target))
        loss = functional.cross_entropy(logits(known), target) + penalty
        loss.backward()  # type: ignore[no-untyped-call]  # torch forgot to annotate it
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # the same
    with torch.no_grad():
        told = logits(wanted).argmax(1).numpy()
        shares = gates.softmax(0).tolist()
    names = (*(f"stage {place}" for place in range(len(known) - 1)), POOL)
    alone = [linear_probe(query, labels, one, bank_labels) for query, one in zip(queries, bank, strict=True)]
    return Layers(
        names=names,
        weights=tuple(shares),
        accuracies=tuple(alone),
        gated=float((told == labels).mean()),
        best=names[int(np.argmax(alone))],
    )
