"""The training step of a tail as one plain ONNX graph: forward, loss, backward, clipped SGD with momentum.

No engine needs to know about training: the backward pass is traced ahead of time by `make_fx` into the same kind of
operators as the forward pass. Everything random is an input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from edgessl.errors import GateError
from edgessl.export.class_token import for_class_token
from edgessl.export.gradients import decompositions
from edgessl.export.graph import write_graph
from edgessl.export.objectives import Objective, Source, objective, squared_distance
from edgessl.export.split import Split, Tail
from edgessl.export.spread_last import spread_last
from edgessl.runtimes.engines import open_engine

WEIGHT_BOUND = 1e-5  #: largest difference of a weight after one step, absolute
LOSS_BOUND = 1e-4  #: the same of the loss, relative: an encoder that hardly spreads magnifies rounding
SCALARS = ("lr", "momentum", "pull", "clip")


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """Shape of the step and the values that the device starts from. All defaults are ours.

    Attributes:
        objective: A key of `OBJECTIVES`.
        batch: Frames per step; each has two views.
        anchors: Source latents per step whose embedding is held to the reference.
        lr, momentum: Of SGD (Sutskever et al. 2013; torch's form, v = m v + g).
        pull: Weight decay towards the factory weights (L2-SP, Li et al. 2018, arXiv:1802.01483).
        clip: Largest norm of the whole gradient.
    """

    objective: str = "align"
    batch: int = 16
    anchors: int = 16
    lr: float = 1e-2
    momentum: float = 0.9
    pull: float = 1e-3
    clip: float = 1.0

    def __post_init__(self) -> None:
        objective(self.objective)


class Step(nn.Module):
    """One step as a function of tensors, in PyTorch: what is exported, and what the export is compared with.

    Args:
        split: Gives the tail's weights, and the shape of latents.
        config: Shape of the step.
        source: Statistics of the embedding where the encoder was made.
        tail: What computes the vectors, with the weights of the split's; without it the split's own.
    """

    def __init__(self, split: Split, config: StepConfig, source: Source, tail: Tail | None = None) -> None:
        super().__init__()
        self.split, self.config, self.source, self.tail = split, config, source, tail or split.tail
        self.factory = split.tail_weights()
        self.names = list(self.factory)
        self.loss: Objective = objective(config.objective)
        width = self.split.encoder.dim
        probe = torch.nn.functional.normalize(torch.rand(3, width, generator=torch.Generator().manual_seed(0)), dim=1)
        self.terms = [*self.loss(probe, probe.flip(0), source), "anchor"]

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Inputs as `inputs()` names them, outputs as `outputs()` does."""
        count = len(self.names)
        weights, velocity = list(arguments[:count]), list(arguments[count : 2 * count])
        a, b, anchors, reference, lr, momentum, pull, clip = arguments[2 * count :]
        here = dict(zip(self.names, weights, strict=True))
        # One pass over everything: a batch of three parts costs less than three batches.
        vectors = functional_call(self.tail, here, (torch.cat([a, b, anchors]),))
        z_a, z_b, z_anchor = vectors.split([len(a), len(b), len(anchors)])
        terms = self.loss(z_a, z_b, self.source) | {"anchor": squared_distance(z_anchor, reference)}
        loss = torch.stack(list(terms.values())).sum()
        gradients = list(torch.autograd.grad(loss, weights))
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
        share = (clip / (norm + 1e-6)).clamp_max(1.0)  # as torch.nn.utils.clip_grad_norm_
        factory = self.factory.values()
        velocity = [
            momentum * v + share * gradient + pull * (w - w0)
            for v, gradient, w, w0 in zip(velocity, gradients, weights, factory, strict=True)
        ]
        weights = [w - lr * v for w, v in zip(weights, velocity, strict=True)]
        values = [loss, *terms.values(), norm, *weights, *velocity]
        return tuple(value.detach() for value in values)

    def inputs(self) -> list[str]:
        """Names of the inputs."""
        state = [f"{kind}.{name}" for kind in ("weight", "velocity") for name in self.names]
        return [*state, "a", "b", "anchors", "reference", *SCALARS]

    def outputs(self) -> list[str]:
        """Names of the outputs."""
        state = [f"new.{kind}.{name}" for kind in ("weight", "velocity") for name in self.names]
        return ["loss", *(f"loss.{term}" for term in self.terms), "gradient_norm", *state]

    def example(self) -> tuple[Tensor, ...]:
        """Inputs of the right shapes, with the factory weights and zero velocity."""
        generator = torch.Generator().manual_seed(0)
        config, latent = self.config, self.split.latent
        a, b, anchors = (
            torch.rand(n, *latent, generator=generator) for n in (config.batch, config.batch, config.anchors)
        )
        with torch.no_grad():
            reference = self.split.tail(anchors)
        scalars = [torch.tensor(float(asdict(config)[name])) for name in SCALARS]
        velocity = [torch.zeros_like(weight) for weight in self.factory.values()]
        # Copies: a tensor that is both an argument and a constant would be traced as the argument.
        weights = [weight.clone() for weight in self.factory.values()]
        return (*weights, *velocity, a, b, anchors, reference, *scalars)


def write_step(step: Step, path: Path) -> None:
    """Write `step` as an ONNX graph, its tail by the fewest operations that give the same."""
    step = Step(step.split, step.config, step.source, for_class_token(step.split.tail))
    example = step.example()

    def run(arguments: Sequence[Tensor]) -> tuple[Tensor, ...]:
        leaves = [tensor.detach().requires_grad_() for tensor in arguments[: len(step.names)]]
        outputs: tuple[Tensor, ...] = step(*leaves, *arguments[len(step.names) :])
        return outputs

    # Shapes are enough: with numbers, activations of a whole batch and their gradients would be in memory.
    trace = make_fx(run, decomposition_table=decompositions(), tracing_mode="fake", _allow_non_fake_inputs=True)
    traced = trace(list(example))
    spread_last(traced.graph)
    traced.recompile()
    write_graph(_Traced(traced), example, path, inputs=step.inputs(), outputs=step.outputs())


def step_parity(step: Step, path: Path, engine: str, latents: NDArray[np.float32]) -> dict[str, Any]:
    """Run one step in the engine and in PyTorch, and compare.

    Args:
        step: What was exported.
        path: The graph that `write_step` wrote.
        engine: A key of the runtime's `ENGINES`.
        latents: Real ones, `(n, *latent)`, any number.

    Raises:
        GateError: A weight differs by more than `WEIGHT_BOUND`, or the loss by more than `LOSS_BOUND` of itself.
    """
    example = list(step.example())
    generator = torch.Generator().manual_seed(1)
    for place in range(len(step.names)):  # away from the factory's, so that the pull is seen
        example[place] = example[place] + 0.01 * torch.randn(example[place].shape, generator=generator)
    for offset, name in enumerate(("a", "b", "anchors")):
        place = step.inputs().index(name)
        rows = (np.arange(len(example[place])) + offset) % len(latents)
        example[place] = torch.from_numpy(latents[rows])
    leaves = [tensor.clone().requires_grad_() for tensor in example[: len(step.names)]]
    expected = dict(zip(step.outputs(), step(*leaves, *example[len(step.names) :]), strict=True))
    opened = open_engine(engine, path)
    try:
        given = opened.run(dict(zip(step.inputs(), (tensor.numpy() for tensor in example), strict=True)))
        info = opened.info()
    finally:
        opened.close()
    weights = [name for name in expected if name.startswith("new.weight.")]
    off = max((float(np.abs(given[name] - expected[name].numpy()).max()) for name in weights), default=0.0)
    loss_off = abs(float(given["loss"]) / float(expected["loss"]) - 1)
    # Written so that NaN, which compares false with everything, does not pass.
    if not (off <= WEIGHT_BOUND and loss_off <= LOSS_BOUND):
        raise GateError(
            f"{path.name}: a weight differs by {off:.2g} (at most {WEIGHT_BOUND}), the loss by {loss_off:.2g} of itself "
            f"(at most {LOSS_BOUND})"
        )
    facts = {"engine": info["engine"], "version": info["version"]}
    return facts | {"largest_weight_difference": off, "relative_loss_difference": loss_off}


def step_facts(step: Step) -> dict[str, Any]:
    """What the manifest says about the step."""
    return asdict(step.config) | {"terms": step.terms}


class _Traced(nn.Module):
    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.graph(list(arguments)))
