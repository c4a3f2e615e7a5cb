"""An encoder from a function of the user's own: `package.module:factory`, with its weights in a safetensors file."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgessl.encoders.base import EncoderModule
from edgessl.encoders.parts import AsToken, OneToken, Parts, encoder_of
from edgessl.encoders.weights import load_weights
from edgessl.errors import EdgeSSLError, InputError, UnknownNameError
from edgessl.signals import InputSpec, image_spec

EXAMPLE = "def factory(): return MyModel()  # normalised images (batch, 3, height, width) -> (batch, dim)"


def load_factory(
    source: str, input: InputSpec | None, weights: Path | None, pool: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Call the factory and make an encoder of what it gives: the fields of `load.Loaded`.

    It may give an `EncoderModule`; a timm model; or any `nn.Module` from normalised samples to `(batch, dim)`. Of the
    module these attributes are read where they exist: `input` (an `InputSpec`), `input_size` (height and width), `mean`,
    `std`, `license`.

    Raises:
        InputError: It cannot be imported or called, or gives something else.
    """
    from edgessl.encoders.origin import preprocessing_of, versions_of, weights_facts

    if pool:
        raise InputError(f"the pool of {source} is part of its code; leave --pool out")
    made = _called(source)
    if not isinstance(made, nn.Module):
        raise InputError(f"{source} gave {type(made).__name__}, not an nn.Module; write {EXAMPLE}")
    fitted = None if weights is None else load_weights(made, weights)
    encoder = made if isinstance(made, EncoderModule) else _encoder(made.eval(), source, input, options)
    if input is not None and encoder.input != input:
        raise InputError(f"{source} takes {encoder.input.shape}, not {input.shape}")
    if not hasattr(encoder, "name"):
        encoder.name, encoder.options = source, dict(options)
    licence = getattr(made, "license", None)
    facts: dict[str, Any] = {"versions": versions_of(), "factory": source}
    return {
        "encoder": encoder,
        "facts": facts | weights_facts(weights, fitted) | ({"license": str(licence)} if licence else {}),
        "pooling": "own",
        "preprocessing": preprocessing_of(encoder),
    }


def _called(source: str) -> Any:
    module_name, _, function_name = source.partition(":")
    added = str(Path.cwd()) not in sys.path
    if added:  # as `python -m` does: the user's file lies beside what is typed
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = import_module(module_name)
    except Exception as error:
        raise InputError(
            f"{module_name!r} of {source!r} cannot be imported ({type(error).__name__}: {error}); it must lie in this "
            "folder or be installed"
        ) from error
    finally:
        if added:
            sys.path.remove(str(Path.cwd()))
    factory = getattr(module, function_name, None)
    if not callable(factory):
        known = [name for name, each in vars(module).items() if callable(each) and not name.startswith("_")]
        raise UnknownNameError(f"function of {module_name},", function_name, known or ["none"])
    try:
        return factory()
    except EdgeSSLError:
        raise
    except Exception as error:
        raise InputError(f"{source}() failed: {type(error).__name__}: {error}") from error


def _encoder(model: nn.Module, source: str, input: InputSpec | None, options: dict[str, Any]) -> EncoderModule:
    for option in options:
        if option != "tail":
            raise UnknownNameError(f"setting of {source},", option, ["tail"])
    spec = input or _spec(model, source)
    if spec.kind == "image" and hasattr(model, "forward_features") and hasattr(model, "forward_head"):
        from edgessl.encoders.timm_models import encoder_from_timm

        return encoder_from_timm(model, spec, **options)
    given = {name: _floats(getattr(model, name)) for name in ("mean", "std") if getattr(model, name, None) is not None}
    if spec.kind == "image" and not given:  # it was not said: it takes 0..1 as it is, not what ImageNet models take
        given = {"mean": [0.0] * 3, "std": [1.0] * 3}
    _probe(model, spec, source)
    ways: list[Callable[[], Parts]] = [lambda: _whole(model)]
    if isinstance(model, nn.Sequential) and len(model) > 1:
        ways.insert(0, lambda: _sequence(model, spec))
    return encoder_of(ways, model, spec, mean=given.get("mean"), std=given.get("std"), **options)


def _spec(model: nn.Module, source: str) -> InputSpec:
    spec, size = getattr(model, "input", None), getattr(model, "input_size", None)
    if isinstance(spec, InputSpec):
        return spec
    if isinstance(size, int):
        return image_spec(size, size)
    if isinstance(size, tuple | list) and len(size) >= 2:
        return image_spec(int(size[-2]), int(size[-1]))
    raise InputError(
        f"{source} does not say what it takes; type --size HEIGHTxWIDTH, or set model.input_size = (224, 224); "
        "for a series model.input = InputSpec(kind='series', ...)"
    )


def _probe(model: nn.Module, spec: InputSpec, source: str) -> None:
    shape = (3, *spec.shape[:2]) if spec.kind == "image" else spec.shape
    try:
        with torch.no_grad():
            given = model(torch.rand(2, *shape))
    except Exception as error:
        raise InputError(f"{source} does not take (2, {', '.join(map(str, shape))}): {error}") from error
    if not isinstance(given, Tensor) or given.ndim != 2 or len(given) != 2:
        told = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise InputError(f"{source} gave {told} for 2 samples, not (2, dim); write {EXAMPLE}")


def _whole(model: nn.Module) -> Parts:
    return Parts(stages=[AsToken(copy.deepcopy(model))], pool=OneToken())


@torch.no_grad()
def _sequence(model: nn.Sequential, spec: InputSpec) -> Parts:
    """A plain sequence: stages as long as its latents keep their axes, the rest the pool."""
    latent = torch.rand(2, *((3, *spec.shape[:2]) if spec.kind == "image" else spec.shape))
    children = list(copy.deepcopy(model))
    count = 0
    for child in children:
        latent = child(latent)
        if latent.ndim != 4:
            break
        count += 1
    if count < 2:  # tokens and series go whole: which axis of three holds the channels only its author knows
        return _whole(model)
    return Parts(stages=children[:count], pool=nn.Sequential(*children[count:]), spread=True)


def _floats(values: Any) -> list[float]:
    return [float(value) for value in torch.as_tensor(values).flatten()]
