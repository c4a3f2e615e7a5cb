"""The exported step against PyTorch eager, for every objective and both kinds of tail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.func import functional_call

from edgessl.export.objectives import OBJECTIVES, Source
from edgessl.export.split import Split
from edgessl.export.train_step import SCALARS, Step, StepConfig, write_step
from edgessl.runtimes.engines import open_engine
from tests.export.conftest import smooth_frames

STEPS = 20


def source_of(split: Split) -> Source:
    with torch.no_grad():
        vectors = split.tail(split.trunk(torch.from_numpy(smooth_frames(64)), *split.identity_ports())[0])
    return Source(mean=vectors.mean(0), std=vectors.std(0))


def batches(split: Split, config: StepConfig) -> list[tuple[torch.Tensor, ...]]:
    """Real latents: two noisy views of some frames, and anchors with their reference."""
    rng, drawn = np.random.default_rng(0), []
    for step in range(STEPS):
        frames = smooth_frames(config.batch, seed=100 + step)
        noisy = [np.clip(frames * 0.7 + rng.normal(0, 9, frames.shape), 0, 255).astype(np.uint8) for _ in range(2)]
        with torch.no_grad():
            a, b, anchors = (
                split.trunk(torch.from_numpy(each), *split.identity_ports())[0]
                for each in (*noisy, smooth_frames(config.anchors, seed=step))
            )
            drawn.append((a, b, anchors, split.tail(anchors)))
    return drawn


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_twenty_steps_are_those_of_pytorch(name: str, split: Split, tmp_path: Path) -> None:
    config = StepConfig(objective=name, batch=6, anchors=5, lr=0.005, pull=0.05, clip=0.5)
    step = Step(split, config, source_of(split))
    write_step(step, tmp_path / "step.onnx")
    weights = {key: value.clone().requires_grad_() for key, value in step.factory.items()}
    optimizer = torch.optim.SGD(weights.values(), lr=config.lr, momentum=config.momentum)
    state = dict(zip(step.inputs(), (tensor.numpy() for tensor in step.example()), strict=True))
    scalars = {key: np.asarray(getattr(config, key), np.float32) for key in SCALARS}
    found = {node.op_type for node in onnx.load(tmp_path / "step.onnx").graph.node}
    assert not {"NonZero", "ScatterND", "ScatterElements", "If", "Loop", "RandomNormalLike"} & found, "not every engine"
    engine = open_engine("onnxruntime", tmp_path / "step.onnx")
    assert set(engine.inputs) == set(step.inputs())
    clipped = 0
    for a, b, anchors, reference in batches(split, config):
        z_a, z_b, z_anchor = (functional_call(split.tail, weights, (latents,)) for latents in (a, b, anchors))
        terms = OBJECTIVES[name](z_a, z_b, step.source)
        loss = sum(terms.values()) + (1 - torch.nn.functional.cosine_similarity(z_anchor, reference)).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), config.clip)
        clipped += bool(norm > config.clip)
        for key, weight in weights.items():
            weight.grad += config.pull * (weight.detach() - step.factory[key])
        optimizer.step()
        feeds = {key: value for key, value in state.items() if key.startswith(("weight.", "velocity."))}
        mine = engine.run(
            feeds
            | scalars
            | {"a": a.numpy(), "b": b.numpy(), "anchors": anchors.numpy(), "reference": reference.numpy()}
        )
        state = {key.removeprefix("new."): value for key, value in mine.items()}
        assert float(mine["loss"]) == pytest.approx(float(loss.detach()), rel=1e-5)
        assert float(mine["gradient_norm"]) == pytest.approx(float(norm), rel=1e-3)
        assert float(sum(mine[f"loss.{term}"] for term in step.terms)) == pytest.approx(float(loss.detach()), rel=1e-5)
    moved = 0.0
    for key, weight in weights.items():
        np.testing.assert_allclose(state[f"weight.{key}"], weight.detach().numpy(), rtol=0, atol=1e-5)
        moved = max(moved, float((weight.detach() - step.factory[key]).abs().max()))
    assert moved > 1e-3, "nothing was learned, so nothing was compared"
    assert clipped, "the clip was never tried"


def test_factory_weights_pull(split: Split) -> None:
    """With no gradient to follow (lr reaches the pull alone), a displaced weight moves towards the factory's."""
    step = Step(split, StepConfig(batch=3, anchors=2, clip=0.0, momentum=0.0, pull=1.0, lr=0.25), source_of(split))
    arguments = list(step.example())
    arguments[0] = arguments[0] + 1.0
    arguments = [each.requires_grad_(place < len(step.names)) for place, each in enumerate(arguments)]
    outputs = dict(zip(step.outputs(), step(*arguments), strict=True))
    first = step.names[0]
    torch.testing.assert_close(outputs[f"new.weight.{first}"], step.factory[first] + 0.75)
