"""What `recipes.py` trains each recipe with: one line each; what a line leaves out is the recipe's own default."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any

from imu import IMU

from edgessl.check import usual_encoder
from edgessl.encoders import build_encoder
from edgessl.recipes import RECIPES, build_recipe
from edgessl.signals import image_spec

JOINT, PAINTED, SERIES = 0.12, 0.04, 0.03  #: gains that are aimed at: linear probe twice, macro-F1 for series
#: image recipes that paint or tell what was done, instead of comparing views
PAINTS = {
    "autoencoder",
    "bootleg",
    "crobo",
    "denoising_autoencoder",
    "ijepa",
    "inpainting",
    "mae",
    "rotation",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a recipe is trained on a kind of samples."""

    steps: int
    batch: int | None = None
    lr: float | None = None
    precision: str = "32-true"
    encoder: str = ""
    encoder_options: dict[str, Any] = field(default_factory=dict)
    recipe_options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        found = dict(json.loads(json.dumps(asdict(self))))
        return {key: value for key, value in found.items() if key != "precision" or value != "32-true"}


#: what crops and colour of CIFAR-10 are usually, where a robot's views also turn, blur, darken and add noise
CROPS = {"turn_deg": 0.0, "blur": 0.0, "noise": 0.0, "gain": [0.6, 1.4]}
#: what learns from likeness alone needs views that are less alike
WIDE = CROPS | {"gain": [0.4, 1.4], "area": [0.15, 1.0]}
FAR = WIDE | {"area": [0.08, 1.0]}
HALF = "bf16-mixed"
USUAL = {"image": Settings(steps=900), "series": Settings(steps=600)}
#: on one core a step of a masked recipe takes over a second with the usual vit_micro, a third of that with this
SLIM = {"dim": 96, "depth": 4, "heads": 3}
MEAN = SLIM | {"pool": "mean"}
NARROW = {"width": 48, "depth": 1, "heads": 3}  # predicts each block on its own, which is most of a step
#: what predicts blocks of tokens
BLOCKS = Settings(steps=1400, batch=64, lr=1e-3, precision=HALF, encoder_options=MEAN, recipe_options=NARROW)
#: (recipe, kind) -> its line, where it is not the usual one
TABLE = {
    ("vicreg", "image"): Settings(steps=1500, recipe_options={"views": WIDE}),
    ("moco", "image"): Settings(steps=1500, recipe_options={"views": CROPS}),
    ("moco_v3", "image"): Settings(steps=1700, recipe_options={"views": CROPS}),
    ("barlow_twins", "image"): Settings(steps=2600, lr=2e-3, precision=HALF, recipe_options={"views": WIDE}),
    ("simsiam", "image"): Settings(steps=5000, precision=HALF, recipe_options={"views": FAR}),
    ("byol", "image"): Settings(steps=3000, lr=2e-3, precision=HALF, recipe_options={"views": WIDE, "momentum": 0.97}),
    ("swav", "image"): Settings(steps=2000, recipe_options={"views": CROPS, "local_views": 0}),
    ("dino", "image"): Settings(
        steps=1800,
        lr=3e-3,
        precision=HALF,
        recipe_options={"views": FAR, "local_views": 0, "teacher_temperature": 0.04},
    ),
    ("lejepa", "image"): Settings(steps=1800, precision=HALF, recipe_options={"views": WIDE}),
    ("mae", "image"): Settings(steps=600, precision=HALF, encoder_options=MEAN),
    ("ijepa", "image"): BLOCKS,
    ("bootleg", "image"): BLOCKS,
    # With the paper's share hidden, six of 64 patches are seen, and tell enough to learn from unpaired views too.
    ("crobo", "image"): Settings(
        steps=700, batch=64, precision=HALF, encoder_options=MEAN, recipe_options={"hidden": 0.97}
    ),
    # Of the usual 128-wide encoder the mean over tokens tells nearly all before anything is learned: little can be gained.
    ("mae", "series"): Settings(
        steps=2000, encoder_options={"dim": 32}, recipe_options={"hidden": 0.5, "width": 64, "depth": 4}
    ),
    # The Gaussian asks for no pairs: with more of it unpaired views teach as well.
    ("lejepa", "series"): Settings(steps=1000, recipe_options={"gaussian": 0.002, "local_views": 0}),
    ("vicreg", "series"): Settings(steps=600, recipe_options={"invariance": 100.0}),
}


def settings_of(recipe: str, kind: str) -> Settings:
    """The line of a recipe, its encoder filled in."""
    usual = USUAL[kind]
    if kind == "image" and recipe not in PAINTS:
        usual = replace(usual, recipe_options={"views": CROPS})
    line = TABLE.get((recipe, kind), usual)
    return replace(line, encoder=line.encoder or usual_encoder(recipe, kind))


@cache
def resolved(recipe: str, kind: str) -> dict[str, Any]:
    """Every number of a training, defaults too: rows that were made with others are no longer its figures."""
    settings = settings_of(recipe, kind)
    spec = image_spec(32, 32) if kind == "image" else IMU
    method = build_recipe(
        recipe, build_encoder(settings.encoder, spec, **settings.encoder_options), **settings.recipe_options
    )
    views = getattr(method.settings, "views", None) or method.usual_views.get(kind)
    every = settings.to_json() | {"config": asdict(method.settings), "defaults": asdict(method.defaults)}
    every["config"] |= {"views": None if views is None else asdict(views)} if "views" in every["config"] else {}
    return dict(json.loads(json.dumps(every)))


def goal_of(recipe: str, kind: str) -> float:
    """The gain over the untrained encoder that is aimed at."""
    if kind == "series":
        return SERIES
    return PAINTED if recipe in PAINTS else JOINT


def kinds_of(recipe: str) -> list[str]:
    """The kinds of samples that a recipe is measured on."""
    return [kind for kind in USUAL if kind in RECIPES[recipe].kinds]


def command(recipe: str, settings: Settings) -> str:
    """What a user types for the same training on samples of theirs."""
    words = ["edgessl", "pretrain", "frames/" if settings.encoder in ("conv_small", "vit_micro") else "windows.npz"]
    words += ["--recipe", recipe, "--encoder", settings.encoder, "--steps", str(settings.steps)]
    for option in ("batch", "lr"):
        value = getattr(settings, option)
        words += [f"--{option}", f"{value:g}"] if value is not None else []
    words += ["--precision", settings.precision] if settings.precision != "32-true" else []
    for key, value in _flat(settings.recipe_options):
        words += ["--set", f'"{key}={json.dumps(value, separators=(",", ":"))}"']
    for key, value in _flat(settings.encoder_options):
        words += ["--set", f'"encoder.{key}={json.dumps(value, separators=(",", ":"))}"']
    return " ".join([*words, "-o", f"runs/{recipe}"])


def _flat(options: dict[str, Any], group: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in options.items():
        pairs += _flat(value, f"{group}{key}.") if isinstance(value, dict) else [(f"{group}{key}", value)]
    return pairs
