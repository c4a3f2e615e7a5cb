"""SSL methods: one file each, found by name in one table.

A new recipe is a file with a `Recipe` and its frozen config, and one line in `RECIPES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_type_hints

from edgessl.encoders import EncoderModule, check_types
from edgessl.errors import InputError, UnknownNameError
from edgessl.recipes.base import Defaults, Masks, Recipe, Terms, Views
from edgessl.signals import SERIES

__all__ = [
    "ANY",
    "IMAGES",
    "RECIPES",
    "Defaults",
    "Entry",
    "Masks",
    "Recipe",
    "Terms",
    "Views",
    "build_recipe",
    "recipe_class",
    "settings_of",
]

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Config = TypeVar("_Config", bound="DataclassInstance")

IMAGES, ANY = ("image",), ("image", *SERIES)
TOKENS = ("vit_micro", "vit_series")  # small encoders with tokens, for images and series


class Entry(NamedTuple):
    """One line of the table.

    Attributes:
        module, cls: Where the recipe is.
        about: One line for `edgessl recipes`.
        kinds: Kinds of samples it learns from.
        encoder: An encoder that it can train, per kind.
    """

    module: str
    cls: str
    about: str
    kinds: tuple[str, ...]
    encoder: tuple[str, ...] = ("conv_small", "conv_series")


RECIPES = {
    "simclr": Entry("simclr", "SimCLR", "contrast: two views of a sample against all other samples", ANY),
    "vicreg": Entry("vicreg", "VICReg", "invariance, with variance and covariance held up", ANY),
    "byol": Entry("byol", "BYOL", "predict what a slow teacher sees in another view", ANY),
    "moco": Entry("moco", "MoCo", "contrast: against a queue of what a slow teacher saw", ANY),
    "moco_v3": Entry("moco_v3", "MoCoV3", "contrast: predict what a slow teacher sees, among the batch", ANY),
    "simsiam": Entry("simsiam", "SimSiam", "predict the other view; no teacher, no negatives", ANY),
    "barlow_twins": Entry("barlow_twins", "BarlowTwins", "views correlate, dimensions do not", ANY),
    "swav": Entry("swav", "SwAV", "predict the other view's cluster", ANY),
    "dino": Entry("dino", "DINO", "say of a part what a slow teacher says of the whole", ANY),
    "lejepa": Entry("lejepa", "LeJEPA", "invariance, with embeddings held to a round Gaussian", ANY),
    "mae": Entry("mae", "MAE", "paint hidden patches; for transformers", ANY, TOKENS),
    "ijepa": Entry("ijepa", "IJEPA", "predict a slow teacher's tokens of hidden blocks; for transformers", ANY, TOKENS),
    "bootleg": Entry("bootleg", "Bootleg", "as ijepa, with the teacher's tokens at several depths", ANY, TOKENS),
    "crobo": Entry("crobo", "CroBo", "one vector paints a hidden crop; for transformers", IMAGES, ("vit_micro",)),
    "rotation": Entry(
        "rotation", "Rotation", "by how many quarter turns was the image turned?", IMAGES, ("conv_small",)
    ),
    "inpainting": Entry("inpainting", "Inpainting", "paint what was in the hole of an image", IMAGES, ("conv_small",)),
    "autoencoder": Entry("autoencoder", "Autoencoder", "squeeze a sample into the vector, paint it from there", ANY),
    "denoising_autoencoder": Entry(
        "denoising_autoencoder", "DenoisingAutoencoder", "from a sample with values lost, paint it as it was", ANY
    ),
    "ts2vec": Entry(
        "ts2vec", "TS2Vec", "two crops of a window agree at every scale", SERIES, ("tcn_small", "conv_series")
    ),
    "ts_tcc": Entry(
        "ts_tcc", "TSTCC", "the past of one view predicts the future of the other", SERIES, ("conv_series",)
    ),
    "cpc": Entry("cpc", "CPC", "tell the future of a window from that of others", SERIES, ("conv_series",)),
    "masked_series": Entry(
        "masked_series", "MaskedSeries", "hide patches of a window, paint them", SERIES, ("vit_series", "conv_series")
    ),
    "biopm": Entry("biopm", "BioPM", "take movements out of a window, paint them", SERIES, ("conv_series",)),
    "unimotion": Entry(
        "unimotion", "UniMotion", "hide where a movement says most, paint it", SERIES, ("vit_series", "conv_series")
    ),
}


def recipe_class(name: str) -> type[Recipe]:
    """The class of a recipe.

    Raises:
        UnknownNameError: There is no recipe of that name.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    entry = RECIPES[name]
    found: type[Recipe] = getattr(import_module(f"edgessl.recipes.{entry.module}"), entry.cls)
    return found


def build_recipe(name: str, encoder: EncoderModule, **options: Any) -> Recipe:
    """Put a recipe around an encoder.

    Args:
        name: A key of `RECIPES`.
        encoder: What is trained.
        options: Settings of the recipe that differ from its config's defaults. `views` may be a mapping of the settings
            of views that differ from what is usual for the recipe and the encoder's kind of samples.

    Raises:
        UnknownNameError: There is no recipe, or no setting of it, of that name.
        InputError: The recipe cannot train this encoder, or a setting is out of range.
    """
    recipe, kind = recipe_class(name), encoder.input.kind
    if kind not in RECIPES[name].kinds:
        known = " and ".join(RECIPES[name].kinds)
        raise InputError(f"recipe {name!r} learns from {known} samples; this encoder takes {kind}")
    views = {"views": recipe.usual_views[kind]} if "views" in {field.name for field in fields(recipe.config)} else {}
    settings: Any = settings_of(recipe.config, f"recipe {name!r}", options, views)
    try:
        return recipe(encoder, settings)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        if not options:
            raise
        raise InputError(f"recipe {name!r} cannot be built with {options}: {error}") from error


def settings_of(
    config: type[_Config], owner: str, options: Mapping[str, Any], usual: Mapping[str, Any] | None = None
) -> _Config:
    """A config with these settings, its defaults otherwise.

    Args:
        config: The frozen dataclass.
        owner: What it belongs to, for messages.
        options: Settings by name. One that is a config itself may be a mapping of its own settings.
        usual: What stands in place of a default.

    Raises:
        UnknownNameError: It has no setting of that name.
        InputError: A setting is of another type, or out of range.
    """
    hints = get_type_hints(config)
    values = dict(usual or {})
    for option, value in options.items():
        if option not in hints:
            raise UnknownNameError(f"setting of {owner},", option, [field.name for field in fields(config)])
        whole = values.get(option, _default(config, option))
        if is_dataclass(whole) and not isinstance(whole, type):
            values[option] = _changed(whole, f"{option} of {owner}", value)
        else:
            check_types(owner, hints, {option: value})
            values[option] = value
    return config(**values)


def _changed(whole: DataclassInstance, owner: str, value: Any) -> Any:
    """A config inside a config: another one of its kind, or some of its settings."""
    if isinstance(value, type(whole)):
        return value
    if not isinstance(value, Mapping):
        name = owner.partition(" ")[0]
        raise InputError(
            f"{owner} has settings of its own; type --set {name}.{fields(whole)[0].name}=VALUE, not {value!r}"
        )
    hints = get_type_hints(type(whole))
    for option in value:
        if option not in hints:
            raise UnknownNameError(f"setting of {owner},", option, [field.name for field in fields(whole)])
    check_types(owner, hints, value)
    return replace(whole, **{key: tuple(each) if isinstance(each, list) else each for key, each in value.items()})


def _default(config: type[DataclassInstance], name: str) -> Any:
    field = next(field for field in fields(config) if field.name == name)
    return field.default_factory() if callable(field.default_factory) else field.default
