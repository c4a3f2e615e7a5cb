"""Any image model of timm as an `EncoderModule`, by name."""

from __future__ import annotations

import copy
import difflib
from typing import Any

import torch
from torch import Tensor, nn

from edgessl.encoders.base import EncoderModule, require_image
from edgessl.encoders.vit import vit_encoder
from edgessl.errors import InputError
from edgessl.signals import InputSpec
from edgessl.vision import vision_module


def names() -> set[str]:
    """Every architecture that timm can build."""
    return set(vision_module("timm").list_models())


def nearest(name: str) -> list[str]:
    """A few timm names that look like `name`, for an error message."""
    return difflib.get_close_matches(name, sorted(names()), n=3, cutoff=0.5)


def build(name: str, input: InputSpec, *, pretrained: bool = False, tail: int = 1) -> EncoderModule:
    """Build a timm model for frames of this size.

    Args:
        name: An architecture, such as `mobilenetv4_conv_small` or `vit_tiny_patch16_224`.
        input: Images.
        pretrained: Load timm's weights for it, over the network.
        tail: Blocks (transformer) or stages (convolutional net) in the tail.

    Raises:
        InputError: The model cannot take this size, or its weights cannot be had.
    """
    size = require_image(input, name)
    model = _create(name, size, pretrained)
    config = model.pretrained_cfg or {}
    statistics = {key: config[key] for key in ("mean", "std") if key in config}
    transformer = vision_module("timm.models.vision_transformer").VisionTransformer
    if isinstance(model, transformer):
        return vit_encoder(model, input, tail=tail, **statistics)
    stages, pool, latents = _taken_apart(model, size)
    axis = _channel_axis(latents[-1], model.num_features, name)
    cut = max(1, len(stages) - tail)
    return EncoderModule(
        input,
        stages,
        pool,
        dim=int(model.num_features if not hasattr(model, "head_hidden_size") else model.head_hidden_size),
        channels=[latent.shape[axis] for latent in latents],
        channel_axis=axis,
        cut=cut,
        ports=range(min(cut, 6)),
        **statistics,
    )


def _create(name: str, size: tuple[int, int], pretrained: bool) -> Any:
    create = vision_module("timm").create_model
    try:
        try:
            return create(name, pretrained=pretrained, num_classes=0, img_size=size)
        except TypeError as error:  # convolutional nets take any size and have no such argument
            if "img_size" not in str(error):
                raise
            return create(name, pretrained=pretrained, num_classes=0)
    except (AssertionError, ValueError) as error:
        raise InputError(f"timm cannot build {name!r} for {size[0]}x{size[1]} frames: {error}") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise InputError(
            f"the weights of {name!r} cannot be had: {error}. Download them once where there is a network, "
            "or leave pretrained out"
        ) from error


@torch.no_grad()
def _taken_apart(model: Any, size: tuple[int, int]) -> tuple[list[nn.Module], nn.Module, list[Tensor]]:
    """Stages, the rest of the model, and each stage's output; one stage where taking it apart changes its result."""
    probe = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    model.eval()
    whole = model(probe)
    stages = _stages(copy.deepcopy(model))
    for parts in ([stages] if stages else []) + [([_Features(model)], _Head(model))]:
        latent, latents = probe, []
        for stage in parts[0]:
            latent = stage(latent)
            latents.append(latent)
        features = parts[1](latent)
        if features.shape == whole.shape and torch.allclose(features, whole, rtol=1e-4, atol=1e-5):
            for module in (*parts[0], parts[1]):
                module.train()
            return *parts, latents
    raise InputError(f"timm model {type(model).__name__} does not give one vector per image from forward_head")


def _stages(model: Any) -> tuple[list[nn.Module], nn.Module] | None:
    """Take a convolutional net of a known family apart; what is taken out leaves an identity behind."""
    stem: tuple[str, ...]
    if all(hasattr(model, part) for part in ("conv1", "bn1", "maxpool", "layer1", "layer4")):  # ResNet
        stem, body = ("conv1", "bn1", "act1", "maxpool"), [f"layer{index}" for index in range(1, 5)]
        stages = [getattr(model, name) for name in body]
    elif hasattr(model, "conv_stem") and hasattr(model, "blocks"):  # EfficientNet, MobileNet
        stem, body = ("conv_stem", "bn1"), ["blocks"]
        stages = list(model.blocks)
    elif isinstance(getattr(model, "stem", None), nn.Module) and hasattr(model, "stages"):  # ConvNeXt and relatives
        stem, body = ("stem",), ["stages"]
        stages = list(model.stages)
    else:
        return None
    parts = [getattr(model, name) for name in stem if hasattr(model, name)]
    for name in (*stem, *body):
        if hasattr(model, name):
            setattr(model, name, nn.Sequential())
    return [nn.Sequential(*parts), *stages], _Rest(model)


class _Rest(nn.Module):
    """What stands after the stages: last convolution, pooling, norm, projection."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> Tensor:
        return torch.as_tensor(self.model.forward_head(self.model.forward_features(latent)))


class _Features(nn.Module):
    """A whole model before its pooling, as one stage."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return torch.as_tensor(self.model.forward_features(images))


class _Head(nn.Module):
    """The pooling of a whole model, which it shares with the stage before it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> Tensor:
        return torch.as_tensor(self.model.forward_head(latent))


def _channel_axis(latent: Tensor, width: int, name: str) -> int:
    if latent.ndim not in (3, 4):
        raise InputError(f"timm model {name!r} gives latents of {latent.ndim} axes; edgessl takes maps and tokens")
    last = latent.ndim - 1
    return last if latent.ndim == 3 or (latent.shape[last] == width != latent.shape[1]) else 1
