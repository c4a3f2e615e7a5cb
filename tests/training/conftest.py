"""A recipe small enough to train in no time, with everything that a resumed run could get wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgessl.encoders import EncoderModule, build_encoder
from edgessl.recipes import Defaults, Recipe, Terms, Views
from edgessl.signals import image_spec
from edgessl.sources.arrays import ArraySource
from edgessl.trainer import Run, seeded, train

SPEC = image_spec(16, 24)


class Wobble(Recipe):
    """Random views, dropout, batch norm, a moving buffer; does `mischief` when it is called at a given step."""

    defaults = Defaults(lr=1e-3, weight_decay=1e-2, batch=6)

    def __init__(self, encoder: EncoderModule, mischief: dict[int, Callable[[Tensor], Tensor]]) -> None:
        super().__init__(encoder, None)
        self.head, self.drop = nn.Linear(5, 7), nn.Dropout(0.3)
        self.register_buffer("follower", torch.zeros(7))
        self._mischief, self.calls = mischief, 0

    def views(self, images: Tensor, generator: torch.Generator) -> Views:
        return Views((images + 0.1 * torch.rand(images.shape, generator=generator),))

    def forward(self, batch: Views) -> Terms:
        out = self.head(self.drop(self.encoder.features(batch.views[0])))
        spread = self._mischief.get(self.calls, lambda term: term)((out**2).mean())
        self.calls += 1
        return {"spread": spread, "offset": ((out.mean(0) - 1) ** 2).sum() + self.follower.mean() ** 2}

    def after_step(self, step: int, steps: int) -> None:
        self.follower.lerp_(self.head.bias.detach(), (step + 1) / steps)


def frames(count: int = 29, seed: int = 0) -> ArraySource:
    array = np.random.default_rng(seed).integers(0, 256, (count, *SPEC.shape), dtype=np.uint8)
    return ArraySource("noise", array, SPEC, [f"x/{index:02d}" for index in range(count)])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads only get in each other's way on nets as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., tuple[Wobble, dict[str, Any]]]:
    """Train `Wobble` for 13 steps, with a state every 5, into `tmp_path / name`."""

    def go(
        name: str, *, mischief: dict[int, Callable[[Tensor], Tensor]] | None = None, data: Any = None, **run: Any
    ) -> tuple[Wobble, dict[str, Any]]:
        settings = {"steps": 13, "save_every": 5, "seed": 3, "log_every": 1, "progress": False, "workers": 0} | run
        with seeded(settings["seed"]):
            recipe = Wobble(build_encoder("conv_small", SPEC, widths=(4, 6), dim=5), mischief or {})
        facts = train(recipe, data or frames(), output=tmp_path / name, run=Run(**settings), facts={"recipe": "wobble"})
        return recipe, facts

    return go
