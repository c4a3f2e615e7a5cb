"""Pretraining: a recipe, an encoder and unlabelled samples become a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgessl.data.scale import channel_scale
from edgessl.encoders import build_encoder, encoder_settings
from edgessl.recipes import build_recipe
from edgessl.signals import SERIES
from edgessl.sources import Source
from edgessl.trainer import Run, seeded, train


def pretrain(
    source: Source,
    *,
    recipe: str,
    encoder: str,
    output: Path,
    run: Run | None = None,
    recipe_options: Mapping[str, Any] | None = None,
    encoder_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train an encoder from scratch, or from timm's weights, without labels.

    Args:
        source: The samples; labels are not looked at.
        recipe: A key of `edgessl.recipes.RECIPES`.
        encoder: A key of `edgessl.encoders.ENCODERS`, or a timm model.
        output: The checkpoint folder to make.
        run: Steps, batch, learning rate, seed, hardware, resume; see `Run`.
        recipe_options: Settings of the recipe that differ from its defaults.
        encoder_options: Settings of the encoder that differ from its defaults. For series `mean` and `std` are those of the
            source unless they are given.

    Returns:
        The facts in `encoder.json`: settings, data digest, skipped samples, last loss, versions.

    Raises:
        UnknownNameError: There is no such recipe or encoder.
        InputError: Settings or data that cannot be used; see `edgessl.trainer.train`.
        Interrupted: The user stopped it; the message says how to resume.
    """
    run = run or Run()
    options = dict(encoder_options or {})
    scale = {"mean", "std"}
    if source.spec.kind in SERIES and not scale & set(options) and scale <= set(encoder_settings(encoder)):
        options |= channel_scale(source)
    with seeded(run.seed):
        built = build_encoder(encoder, source.spec, **options)
        method = build_recipe(recipe, built, **dict(recipe_options or {}))
    facts = {
        "made_by": "pretrain",
        "recipe": recipe,
        "config": asdict(method.settings),
        "architecture": {"name": encoder, "options": options},
        "parent": None,
    }
    return train(method, source, output=output, run=run, facts=facts)
