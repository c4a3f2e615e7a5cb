"""Encoder families: one file each, found by name in one table.

A new encoder is a function `build(input, **options) -> EncoderModule` in its own file and one line in `ENCODERS`. Any
other name is looked up in timm.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, get_args, get_origin, get_type_hints

from edgessl.encoders.base import EncoderModule
from edgessl.errors import InputError, UnknownNameError
from edgessl.signals import InputSpec

__all__ = ["ENCODERS", "EncoderModule", "build_encoder", "check_types", "encoder_settings"]

#: name -> (module, function, one line for `edgessl recipes`)
ENCODERS = {
    "conv_small": ("edgessl.encoders.conv", "conv_small", "stride-2 convolutions for 32 to 128 pixels"),
    "res_small": ("edgessl.encoders.conv", "res_small", "residual convolutions for 32 to 128 pixels; a teacher"),
    "vit_micro": ("edgessl.encoders.vit", "vit_micro", "a small vision transformer for 32 to 128 pixels"),
    "conv_series": ("edgessl.encoders.series", "conv_series", "stride-2 convolutions over time"),
    "tcn_small": ("edgessl.encoders.series", "tcn_small", "dilated residual convolutions over time"),
    "vit_series": ("edgessl.encoders.series", "vit_series", "a small transformer over patches of time"),
}


def build_encoder(name: str, input: InputSpec, **options: Any) -> EncoderModule:
    """Build an untrained encoder for samples of this kind.

    Args:
        name: A key of `ENCODERS`, or the name of a timm model.
        input: What one sample is.
        options: Passed to the builder, kept in the checkpoint: plain values only.

    Raises:
        UnknownNameError: Neither edgessl nor timm has an encoder of that name, or it has no such option.
        InputError: The encoder cannot take samples of this kind or size, or an option is of another type.
    """
    build, known = _builder(name), encoder_settings(name)
    for option in options:
        if option not in known:
            raise UnknownNameError(f"setting of encoder {name!r},", option, known)
    hints = get_type_hints(build.func if isinstance(build, partial) else build)
    check_types(f"encoder {name!r}", hints, options)
    try:
        encoder = build(input, **options)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        if not options:
            raise
        raise InputError(f"encoder {name!r} cannot be built with {options}: {error}") from error
    encoder.name, encoder.options = name, dict(options)
    return encoder


def encoder_settings(name: str) -> list[str]:
    """What can be set of an encoder.

    Raises:
        UnknownNameError: Neither edgessl nor timm has an encoder of that name.
    """
    parameters = inspect.signature(_builder(name)).parameters.values()
    return [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]


def check_types(owner: str, hints: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Settings come from a command line: refuse text where a number is needed.

    Args:
        owner: What has these settings, for the message.
        hints: Name -> type; of numbers, text, flags, and sequences of them. What is another type's is not judged.
        values: What was given.

    Raises:
        InputError: A value is of another type.
    """
    for name, value in values.items():
        wanted = _told(hints[name])
        if wanted and not _fits(value, hints[name]):
            raise InputError(f"{name} of {owner} is {wanted}, not {value!r}; type it as in --set KEY=VALUE")


def _builder(name: str) -> Callable[..., EncoderModule]:
    if name in ENCODERS:
        module, function, _ = ENCODERS[name]
        found: Callable[..., EncoderModule] = getattr(import_module(module), function)
        return found
    from edgessl.encoders import timm_models

    models = timm_models.names()
    if name not in models:
        raise UnknownNameError("encoder", name, [*ENCODERS, *timm_models.nearest(name)])
    return partial(timm_models.build, name)


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Sequence, tuple):
        kinds = [kind for kind in get_args(hint) if kind is not Ellipsis]
        if not isinstance(value, list | tuple) or (len(kinds) > 1 and len(kinds) != len(value)):
            return False
        return bool(value) and all(_fits(each, kinds[min(place, len(kinds) - 1)]) for place, each in enumerate(value))
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, hint)


def _told(hint: Any) -> str:
    if get_origin(hint) in (Sequence, tuple):
        return "a list, such as [1,2]"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}.get(hint, "")
