"""The honest test of a recipe: an encoder learns from it what it did not know, and nothing like it from unpaired views."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgessl.data.scale import channel_scale
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import InputError, UnknownNameError
from edgessl.evaluation.probes import Labels, probed
from edgessl.evaluation.splits import held_out
from edgessl.metrics import Vectors
from edgessl.recipes import RECIPES, Recipe, Views, build_recipe
from edgessl.signals import SERIES
from edgessl.sources import Source
from edgessl.sources.base import Indices, finite_rows
from edgessl.trainer import Run, seeded, train

SEEDS, STEPS, MARGIN = (0, 1, 2), 300, 0.02


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A recipe with an encoder for it, and how long it learns.

    Attributes:
        recipe, encoder: Keys of `RECIPES` and `ENCODERS`.
        run: Steps, batch, learning rate; the seed is set by whoever trains.
        recipe_options, encoder_options: Settings that differ from the defaults.
    """

    recipe: str
    encoder: str
    run: Run
    recipe_options: Mapping[str, Any] = field(default_factory=dict)
    encoder_options: Mapping[str, Any] = field(default_factory=dict)

    def begin(self, source: Source, seed: int) -> EncoderModule:
        """The untrained encoder that training with this seed begins with."""
        with seeded(seed):
            return build_encoder(self.encoder, source.spec, **self.encoder_options)

    def trained(self, source: Source, seed: int, *, paired: bool = True) -> tuple[EncoderModule, dict[str, Any]]:
        """Train; without `paired` it is the negative control, which may collapse. Gives the encoder and the facts."""
        with seeded(seed):  # as `begin`: the encoder takes its weights first
            encoder = build_encoder(self.encoder, source.spec, **self.encoder_options)
            recipe = build_recipe(self.recipe, encoder, **self.recipe_options)
        with tempfile.TemporaryDirectory() as folder:
            facts = train(
                recipe if paired else unpaired(recipe),
                source,
                output=Path(folder) / "run",
                run=replace(self.run, seed=seed, guard=paired and self.run.guard),
                facts={"recipe": self.recipe, "paired": paired},
            )
        return encoder, facts


@dataclass(frozen=True, kw_only=True)
class Seed:
    """Macro-F1 of a linear probe on three encoders that began with the same weights."""

    seed: int
    untrained: float
    trained: float
    control: float


@dataclass(frozen=True, kw_only=True)
class Check:
    """What the test found.

    Attributes:
        recipe, encoder: What was trained.
        steps: Of each training.
        margin: The mean gain that is asked for.
        seeds: Figures, one row per seed.
        reasons: Why the recipe failed; empty when it passed.
    """

    recipe: str
    encoder: str
    steps: int
    margin: float
    seeds: tuple[Seed, ...]
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self) | {"seeds": [asdict(seed) for seed in self.seeds], "passed": not self.reasons}


def check(
    recipe: str,
    source: Source,
    test: Source | None = None,
    *,
    encoder: str = "",
    seeds: Sequence[int] = SEEDS,
    margin: float = MARGIN,
    run: Run | None = None,
) -> Check:
    """Train a recipe and its negative control for a short while; probe both beside the encoder that they began with.

    The control is the same recipe on the same samples with `Views.unpaired()`. `judged` has the rule.

    Args:
        recipe: A key of `RECIPES`.
        source: Samples with labels, which only the probes look at.
        test: What the probes are tested on; without it a fifth of `source`, drawn by the first seed, of whole groups
            where the source knows several.
        encoder: A key of `ENCODERS`; without it the one in the recipe's line of the table.
        seeds: Two trainings each.
        margin: Least mean gain of macro-F1 over the untrained encoder.
        run: Steps, batch and learning rate; 300 steps when None.

    Raises:
        UnknownNameError: No such recipe or encoder.
        InputError: There are no labels, or the recipe cannot learn from these samples.
        CollapseError: The recipe collapsed.
    """
    encoder = encoder or usual_encoder(recipe, source.spec.kind)
    _require_labels(source, test)
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds are one or more different numbers, not {list(seeds)}")
    contender = Contender(
        recipe=recipe,
        encoder=encoder,
        run=run or Run(steps=STEPS, progress=False),
        encoder_options=channel_scale(source) if source.spec.kind in SERIES else {},
    )
    rows = []
    for seed in seeds:
        models = {
            "untrained": contender.begin(source, seed),
            "trained": contender.trained(source, seed)[0],
            "control": contender.trained(source, seed, paired=False)[0],
        }
        figures = {name: _macro_f1(model, source, test, seeds[0]) for name, model in models.items()}
        rows.append(Seed(seed=seed, **figures))
    gains = {row.seed: row.trained - row.untrained for row in rows}
    controls = {row.seed: row.control - row.untrained for row in rows}
    return Check(
        recipe=recipe,
        encoder=encoder,
        steps=contender.run.steps or 0,
        margin=margin,
        seeds=tuple(rows),
        reasons=tuple(judged(gains, controls, margin)),
    )


def judged(gains: Mapping[int, float], controls: Mapping[int, float], margin: float) -> list[str]:
    """Why a recipe fails; nothing where it passes.

    It passes when the mean gain over the untrained encoder is at least the margin, every seed gains, and the control
    does not pass: its mean gain stays below the margin, and below the gain of the paired run in every seed. A little it
    may gain: a term that needs no pairs (the variance of VICReg), or batch norms that have seen the data, help by themselves.

    Args:
        gains: Seed -> trained less untrained.
        controls: Seed -> control less untrained, for some of the seeds or all.
        margin: In the unit of the gains.
    """
    reasons = []
    if not fmean(gains.values()) >= margin:
        reasons.append(f"the mean gain is {fmean(gains.values()):+.3f}, under the margin of {margin:g}")
    if lost := [seed for seed, gain in gains.items() if not gain > 0]:
        reasons.append(f"there is no gain with seed {', '.join(map(str, lost))}")
    if not controls:
        reasons.append("the negative control was not run")
    elif not fmean(controls.values()) < margin:
        reasons.append(f"the control gains {fmean(controls.values()):+.3f} from unpaired views, not under {margin:g}")
    if level := [seed for seed, gain in controls.items() if not gain < gains[seed]]:
        reasons.append(f"the control gains as much as the recipe with seed {', '.join(map(str, level))}")
    return reasons


def unpaired(recipe: Recipe) -> Recipe:
    """The negative control of a fresh recipe: the same object, whose views are held against those of other samples."""
    paired = recipe.views

    def views(samples: Tensor, generator: torch.Generator) -> Views:
        return paired(samples, generator).unpaired()

    recipe.views = views  # type: ignore[method-assign]
    return recipe


def usual_encoder(recipe: str, kind: str) -> str:
    """The encoder in the recipe's line of the table for samples of this kind: the first for images, the last for series.

    Raises:
        UnknownNameError: There is no such recipe.
    """
    if recipe not in RECIPES:
        raise UnknownNameError("recipe", recipe, RECIPES)
    return RECIPES[recipe].encoder[-1 if kind in SERIES else 0]


def embedded(encoder: EncoderModule, source: Source) -> tuple[Vectors, Labels]:
    """Unit vectors `(n, dim)` of the samples that can be read, and their labels `(n,)`."""
    vectors, labels, _ = _embedded(encoder, source)
    return vectors, labels


@torch.inference_mode()
def _embedded(encoder: EncoderModule, source: Source) -> tuple[Vectors, Labels, Indices]:
    encoder.eval().cpu()
    kept, vectors = [], []
    for batch in source.batches(256):
        good = finite_rows(batch.frames)
        kept.append(batch.indices[good])
        vectors.append(encoder(torch.from_numpy(batch.frames[good])).numpy())
    labels = np.zeros(len(source), np.int64) if source.labels is None else source.labels
    places = np.concatenate(kept)
    return np.concatenate(vectors), labels[places], places


def _macro_f1(encoder: EncoderModule, source: Source, test: Source | None, seed: int) -> float:
    vectors, labels, places = _embedded(encoder, source)
    if test is not None:
        return probed(vectors, labels, *embedded(encoder, test)).macro_f1
    groups = None if source.groups is None else source.groups[places]
    several = groups is not None and len(np.unique(groups)) > 1
    out = held_out(len(labels), seed=seed, groups=groups if several else None)
    return probed(vectors[~out], labels[~out], vectors[out], labels[out]).macro_f1


def _require_labels(source: Source, test: Source | None) -> None:
    for each in [source] if test is None else [source, test]:
        if each.labels is None:
            raise InputError(
                f"{each.name} has no labels, and the check probes with them; give a folder whose sub-folders are labels, "
                "an .npz file with x_train, y_train, x_test and y_test, or --series label=NAME for a column of logs"
            )
    if test is not None and test.classes != source.classes:
        raise InputError(
            f"{test.name} has the classes {', '.join(test.classes)}, and {source.name} has {', '.join(source.classes)}; "
            "give both the same"
        )
