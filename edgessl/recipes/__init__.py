"""SSL methods: one file each, found by name in one table.

A new recipe is a file with a `Recipe` and its frozen config, and one line in `RECIPES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from edgessl.encoders import EncoderModule, check_types
from edgessl.errors import InputError, UnknownNameError
from edgessl.recipes.base import Defaults, Masks, Recipe, Terms, Views

__all__ = ["RECIPES", "Defaults", "Masks", "Recipe", "Terms", "Views", "build_recipe", "configured"]

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Config = TypeVar("_Config", bound="DataclassInstance")

#: name -> (module, class, one line for `edgessl recipes`, modality)
RECIPES = {
    "simclr": ("edgessl.recipes.simclr", "SimCLR", "contrast: two views of a frame against all other frames", "image"),
    "vicreg": ("edgessl.recipes.vicreg", "VICReg", "invariance, with variance and covariance held up", "image"),
    "byol": ("edgessl.recipes.byol", "BYOL", "predict what a slow teacher sees in another view", "image"),
    "mae": ("edgessl.recipes.mae", "MAE", "paint hidden patches; for vision transformers", "image"),
}


def build_recipe(name: str, encoder: EncoderModule, **options: Any) -> Recipe:
    """Put a recipe around an encoder.

    Args:
        name: A key of `RECIPES`.
        encoder: What is trained.
        options: Settings of the recipe that differ from its config's defaults.

    Raises:
        UnknownNameError: There is no recipe, or no setting of it, of that name.
        InputError: The recipe cannot train this encoder, or a setting is out of range.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    module, cls, _, modality = RECIPES[name]
    if encoder.input.kind != modality:
        raise InputError(f"recipe {name!r} learns from {modality} samples; this encoder takes {encoder.input.kind}")
    recipe = getattr(import_module(module), cls)
    built: Recipe = recipe(encoder, configured(recipe.config, f"recipe {name!r}", options))
    return built


def configured(config: type[_Config], owner: str, options: Mapping[str, Any]) -> _Config:
    """A config with these settings, its defaults otherwise.

    Raises:
        UnknownNameError: It has no setting of that name.
        InputError: A setting is of another type, or out of range.
    """
    known = [field.name for field in fields(config)]
    hints = get_type_hints(config)
    for option, value in options.items():
        if option not in known:
            raise UnknownNameError(f"setting of {owner},", option, known)
        if is_dataclass(hints[option]) and not isinstance(value, hints[option]):
            raise InputError(f"{option} of {owner} cannot be set in one word, as {value!r}; leave it out")
    check_types(owner, hints, options)
    return config(**options)
