"""Any image model of timm as an `EncoderModule`, by name."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from edgessl.encoders.base import EncoderModule, require_image
from edgessl.encoders.parts import AsToken, OneToken, Parts, encoder_of
from edgessl.encoders.pooling import MapPool
from edgessl.encoders.vit import TIMM_POOLS, Head, vit_parts
from edgessl.errors import GateError, InputError
from edgessl.signals import InputSpec
from edgessl.vision import vision_module

#: Families by the attributes that hold them: (what comes first, the stages). The first that computes the same is taken.
FAMILIES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("conv1", "bn1", "act1", "maxpool"), ("layer1", "layer2", "layer3", "layer4")),  # ResNet
    (("conv_stem", "bn1", "act1"), ("blocks",)),  # EfficientNet, MobileNet, GhostNet
    (("stem",), ("stages",)),  # ConvNeXt, EdgeNeXt, FastViT, RepViT, LeViT, MobileOne, MobileViT
    (("stem",), ("s1", "s2", "s3", "s4")),  # RegNet
    (("patch_embed",), ("stages",)),  # TinyViT, EfficientViT
    (("patch_embed",), ("layers",)),  # Swin
    (("stem",), ("blocks",)),
)


#: What a module has that timm can merge for inference.
MERGES = ("fuse", "reparameterize", "switch_to_deploy")


def names() -> set[str]:
    """Every architecture that timm can build."""
    return set(vision_module("timm").list_models())


def nearest(name: str) -> list[str]:
    """A few timm names that look like `name`, for an error message."""
    return difflib.get_close_matches(name, sorted(names()), n=3, cutoff=0.5)


def build(name: str, input: InputSpec, *, pretrained: bool = False, tail: int = 1, pool: str = "") -> EncoderModule:
    """Build a timm model for frames of this size.

    Args:
        name: An architecture, such as `mobilenetv4_conv_small` or `vit_tiny_patch16_224`.
        input: Images.
        pretrained: Load timm's weights for it, over the network.
        tail: Blocks (transformer) or stages (convolutional net) in the tail.
        pool: One of `pooling.POOLS` instead of the model's own.

    Raises:
        InputError: The model cannot take this size or pool, or its weights cannot be had.
    """
    return encoder_from_timm(create(name, require_image(input, name), pretrained), input, tail=tail, pool=pool)


def create(name: str, size: tuple[int, int], pretrained: bool = False) -> Any:
    """The timm model itself, without a classifier, for images of `size` (height, width).

    Raises:
        InputError: It cannot be built for this size, or its weights cannot be had.
    """
    make = vision_module("timm").create_model
    try:
        try:
            return make(name, pretrained=pretrained, num_classes=0, img_size=size)
        except TypeError as error:  # convolutional nets take any size and have no such argument
            if "img_size" not in str(error):
                raise
            return make(name, pretrained=pretrained, num_classes=0)
    except (AssertionError, ValueError) as error:
        raise InputError(f"timm cannot build {name!r} for {size[0]}x{size[1]} frames: {error}") from error
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise InputError(
            f"the weights of {name!r} cannot be had: {error}. Download them once where there is a network and give "
            "the file with --weights FILE.safetensors, or leave pretrained out"
        ) from error


def encoder_from_timm(model: Any, input: InputSpec, *, tail: int = 1, pool: str = "") -> EncoderModule:
    """Take a timm model apart; it is not used afterwards.

    Raises:
        InputError: It gives no vector per image, takes no images of this size, or cannot have this pool.
    """
    config = model.pretrained_cfg or {}
    statistics = {key: config[key] for key in ("mean", "std") if key in config}
    model.eval()
    _plain_pools(model)
    ways: list[Callable[[], Parts]] = []
    if _is_transformer(model):
        if not 0 < tail < len(model.blocks):
            depth = len(model.blocks)
            raise InputError(f"a tail of {tail} blocks leaves no trunk in {depth}; choose 1 to {depth - 1}")
        ways.append(lambda: _transformer(copy.deepcopy(model), pool))
    for stem, body in FAMILIES:
        if all(isinstance(getattr(model, part, None), nn.Module) for part in (stem[0], *body)):
            ways.append(lambda stem=stem, body=body: _family(_pooled(copy.deepcopy(model), pool), stem, body))  # type: ignore[misc]
    ways.append(lambda: _whole(_pooled(copy.deepcopy(model), pool)))
    if not pool:
        ways.append(lambda: Parts(stages=[AsToken(model)], pool=OneToken()))
    whole = model if not pool or _is_transformer(model) else _pooled(copy.deepcopy(model), pool)
    blocks = tail + 1 if _is_transformer(model) else tail  # the last norm is a stage of the tail too
    try:
        return encoder_of(ways, None if pool and _is_transformer(model) else whole, input, tail=blocks, **statistics)
    except (AssertionError, RuntimeError) as error:
        height, width = input.shape[:2]
        raise InputError(f"{type(model).__name__} of timm does not take {height}x{width} frames: {error}") from error


@torch.no_grad()
def reparameterized(encoder: EncoderModule) -> EncoderModule:
    """A copy in which branches that only training needs are merged (RepVGG, FastViT, RepViT, MobileOne, LeViT).

    Raises:
        GateError: The copy computes something else; timm's merging has no proof of its own.
    """
    if not any(hasattr(module, name) for module in encoder.modules() for name in MERGES):
        return encoder
    merged: EncoderModule = vision_module("timm.utils").reparameterize_model(encoder.eval())
    size = (3, *encoder.input.shape[:2])
    probe = torch.rand(2, *size, generator=torch.Generator().manual_seed(0))
    wanted, given = encoder.features(probe), merged.features(probe)
    if not torch.allclose(given, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max())):
        raise GateError(f"merging the branches of {type(encoder).__name__} changed its output; report the model's name")
    return merged


def pooling_of(model: Any) -> str:
    """Our name of the pool that a timm model has, or timm's."""
    if getattr(model, "attn_pool", None) is not None:
        return "attention"
    kind = getattr(model, "global_pool", None)
    if isinstance(kind, nn.Module):
        kind = getattr(kind, "pool_type", "avg")
    if not isinstance(kind, str) or not kind:
        kind = next((each.pool_type for each in _adaptive(model)), "avg")
    return TIMM_POOLS.get(kind, "mean" if kind == "fast" else kind)


def configuration(name: str) -> dict[str, Any]:
    """What timm says about the weights of a name: input size, statistics, interpolation, crop, licence."""
    config = vision_module("timm.models").get_pretrained_cfg(name)
    if config is None:
        raise InputError(f"timm says nothing about the input of {name!r}; give one of its tags, as in NAME.TAG")
    return dict(config.to_dict())


def filter_of(model: Any) -> Callable[[dict[str, Tensor]], Any] | None:
    """How timm renames and resizes what others wrote for this model, such as positions for another size."""
    convert = getattr(import_module(type(model).__module__), "checkpoint_filter_fn", None)
    return None if convert is None else lambda state: convert(state, model)


class Rest(Head):
    """What stands after the stages: last convolution, pooling, norm, projection."""

    def forward(self, latent: Tensor) -> Tensor:
        """Last latent -> `(batch, dim)`."""
        return super().forward(self.model.forward_features(latent))


class Features(nn.Module):
    """A whole model before its pooling, as one stage."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images -> the last latent."""
        return torch.as_tensor(self.model.forward_features(images))


class Flat(nn.Module):
    """Maps `(batch, channels, height, width)` -> tokens `(batch, tokens, channels)`."""

    def forward(self, maps: Tensor) -> Tensor:
        """As the class says."""
        return maps.flatten(2).transpose(1, 2)  # (batch, tokens, channels)


def _is_transformer(model: Any) -> bool:
    kinds = (("vision_transformer", "VisionTransformer"), ("eva", "Eva"), ("beit", "Beit"))
    known = tuple(getattr(vision_module(f"timm.models.{module}"), name) for module, name in kinds)
    return isinstance(model, known) and getattr(model, "rel_pos_bias", None) is None


def _transformer(model: Any, pool: str) -> Parts:
    stages, head = vit_parts(model, pool)
    return Parts(stages=stages, pool=head, spread=True)


def _family(model: Any, stem: tuple[str, ...], body: tuple[str, ...]) -> Parts:
    """What is taken out leaves an identity behind."""
    first = [getattr(model, name) for name in stem if isinstance(getattr(model, name, None), nn.Module)]
    stages = list(getattr(model, body[0])) if len(body) == 1 else [getattr(model, name) for name in body]
    for name in (*stem, *body):
        if hasattr(model, name):
            setattr(model, name, nn.Sequential())
    tokens = getattr(model, "use_conv", None) is False  # LeViT goes over to tokens after its stem
    pool = Head(model) if tokens else Rest(model)
    return Parts(
        stages=[nn.Sequential(*first, *([Flat()] if tokens else [])), *stages],
        pool=pool,
        last=getattr(model, "output_fmt", "NCHW") == "NHWC",
    )


def _whole(model: Any) -> Parts:
    return Parts(
        stages=[Features(model)], pool=Head(model), last=str(getattr(model, "output_fmt", "NCHW")).endswith("NHWC")
    )


def _adaptive(model: nn.Module) -> list[Any]:
    kind = vision_module("timm.layers").SelectAdaptivePool2d
    return [module for module in model.modules() if isinstance(module, kind)]


def _plain_pools(model: nn.Module) -> None:
    """Means instead of adaptive pools of one cell: torch makes those strided views, whose gradient does not export."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size in (1, (1, 1)):
                setattr(parent, name, MapPool("mean", keep=True))


def _pooled(model: Any, pool: str) -> Any:
    """The model with its pooling layer replaced."""
    if not pool:
        return model
    layers = _adaptive(model)
    if len(layers) != 1:
        raise InputError(f"the pooling of {type(model).__name__} is part of its code and stays {pooling_of(model)!r}")
    flat = isinstance(layers[0].flatten, nn.Flatten) or bool(getattr(layers[0].pool, "flatten", False))
    last = getattr(layers[0].pool, "dim", (2, 3)) == (1, 2)
    replacement = MapPool(pool, keep=not flat, last=last)
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is layers[0]:
                setattr(parent, name, replacement)
    return model
