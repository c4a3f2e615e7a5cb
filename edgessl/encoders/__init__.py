"""Encoder families: one file each, found by name in one table.

A new encoder is a function `build(input, **options) -> EncoderModule` in its own file and one line in `ENCODERS`. Any
other name is looked up in timm.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from edgessl.encoders.base import EncoderModule
from edgessl.errors import UnknownNameError
from edgessl.signals import InputSpec

__all__ = ["ENCODERS", "EncoderModule", "build_encoder"]

#: name -> (module, function, one line for `edgessl recipes`)
ENCODERS = {
    "conv_small": ("edgessl.encoders.conv", "conv_small", "stride-2 convolutions for 32 to 128 pixels"),
    "res_small": ("edgessl.encoders.conv", "res_small", "residual convolutions for 32 to 128 pixels; a teacher"),
    "vit_micro": ("edgessl.encoders.vit", "vit_micro", "a small vision transformer for 32 to 128 pixels"),
}


def build_encoder(name: str, input: InputSpec, **options: Any) -> EncoderModule:
    """Build an untrained encoder for samples of this kind.

    Args:
        name: A key of `ENCODERS`, or the name of a timm model.
        input: What one sample is.
        options: Passed to the builder, kept in the checkpoint: plain values only.

    Raises:
        UnknownNameError: Neither edgessl nor timm has an encoder of that name.
        InputError: The encoder cannot take samples of this kind or size.
    """
    if name in ENCODERS:
        module, function, _ = ENCODERS[name]
        encoder: EncoderModule = getattr(import_module(module), function)(input, **options)
    else:
        from edgessl.encoders import timm_models

        models = timm_models.names()
        if name not in models:
            raise UnknownNameError("encoder", name, [*ENCODERS, *timm_models.nearest(name)])
        encoder = timm_models.build(name, input, **options)
    encoder.name, encoder.options = name, dict(options)
    return encoder
