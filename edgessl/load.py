"""Any encoder by one line of text: a checkpoint of ours, a timm model, a Hugging Face folder, or a function of yours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import edgessl
from edgessl.encoders import ENCODERS
from edgessl.encoders.base import EncoderModule, require_image
from edgessl.encoders.origin import preprocessing_of, versions_of, weights_facts
from edgessl.encoders.weights import load_weights
from edgessl.errors import InputError, UnknownNameError
from edgessl.signals import InputSpec, image_spec

FORMS = (
    "a checkpoint folder, timm:NAME, package.module:factory, or a Hugging Face folder (config.json, model.safetensors)"
)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An encoder and what is worth saying about it.

    Attributes:
        encoder: In eval mode; branches that only training needs are merged.
        facts: For the manifest: source, weights file and its digest, versions, licence where the model states one.
        pooling: How the last latent became one vector: one of `pooling.POOLS`, or the model's own word.
        preprocessing: `mean` and `std` of the normalisation inside the graph, and what the model's own configuration says
            about the way images are brought to `size`: `interpolation`, `fit` (`stretch`, or `crop` with the aspect kept),
            `crop` (share of the short side that is kept).
    """

    encoder: EncoderModule
    facts: dict[str, Any]
    pooling: str
    preprocessing: dict[str, Any]


def load_encoder(
    source: str,
    *,
    input: InputSpec | None = None,
    weights: Path | None = None,
    pretrained: bool = False,
    pool: str = "",
    options: Mapping[str, Any] | None = None,
) -> Loaded:
    """Load or build an encoder, in eval mode.

    Args:
        source: One of `FORMS`.
        input: What the encoder itself takes; the model's own size when None.
        weights: A file for a timm model or a factory.
        pretrained: Let timm download its weights.
        pool: One of `pooling.POOLS` instead of the model's own.
        options: For a factory or a timm model: `tail`, the stages that learn on the device.

    Raises:
        InputError: There is no such source, or it does not fit what was asked; the message says what to type.
        CheckpointError: The checkpoint is damaged.
    """
    options = dict(options or {})
    name, colon, rest = source.partition(":")
    if name == "timm" and colon:
        loaded = _timm(rest, input, weights, pretrained, pool, options)
    else:
        _refuse(f"--pretrained is for timm models, not for {source}", pretrained)
        if Path(source).is_dir():
            loaded = _folder(Path(source), input, weights, pool, options)
        elif colon and "/" not in source and "\\" not in source:
            from edgessl.encoders.factory import load_factory

            loaded = Loaded(**load_factory(source, input, weights, pool, options))
        else:
            raise InputError(f"no encoder {source!r}: {_hint(source)}")
    from edgessl.encoders.timm_models import reparameterized

    encoder = reparameterized(loaded.encoder.eval()).eval()
    if not hasattr(encoder, "name"):
        encoder.name = source.partition(":")[2] or Path(source).name
    if not hasattr(encoder, "options"):
        encoder.options = options
    facts = {"made_by": "edgessl export", "source": source, "edgessl": edgessl.__version__} | loaded.facts
    return Loaded(encoder=encoder, facts=facts, pooling=loaded.pooling, preprocessing=loaded.preprocessing)


def _timm(
    name: str, input: InputSpec | None, weights: Path | None, pretrained: bool, pool: str, options: dict[str, Any]
) -> Loaded:
    from edgessl.encoders import timm_models

    if name not in timm_models.names() and name.partition(".")[0] not in timm_models.names():
        raise UnknownNameError("timm model", name, timm_models.nearest(name) or ["resnet18", "vit_small_patch16_224"])
    _refuse("give --weights or --pretrained, not both", weights is not None and pretrained)
    _only(options, ("tail",), f"timm:{name}")
    config = timm_models.configuration(name)
    channels, height, width = config["input_size"]
    if channels != 3:
        raise InputError(f"timm:{name} takes {channels} channels; edgessl takes RGB images")
    spec = input or image_spec(height, width)
    require_image(spec, name)
    model = timm_models.create(name, (spec.shape[0], spec.shape[1]), pretrained)
    fitted = None
    if weights is not None:
        fitted = load_weights(model, weights, convert=timm_models.filter_of(model))
    encoder = timm_models.encoder_from_timm(model, spec, pool=pool, **options)
    encoder.name, encoder.options = name, options | ({"pool": pool} if pool else {})
    facts: dict[str, Any] = {"versions": versions_of("timm"), "untrained": not (pretrained or weights)}
    if pretrained:
        facts["pretrained"] = str(config.get("hf_hub_id") or config.get("url") or name)
    # The licence that timm states is that of the weights it would download.
    if config.get("license") and (pretrained or weights):
        facts["license"] = str(config["license"])
    return Loaded(
        encoder=encoder,
        facts=facts | weights_facts(weights, fitted),
        pooling=pool or timm_models.pooling_of(model),
        preprocessing=preprocessing_of(
            encoder,
            interpolation=config["interpolation"] or "bicubic",
            crop=config["crop_pct"] or 1.0,
            fit="stretch" if config.get("crop_mode") == "squash" else "crop",
        ),
    )


def _folder(folder: Path, input: InputSpec | None, weights: Path | None, pool: str, options: dict[str, Any]) -> Loaded:
    _refuse(f"{folder} holds its own weights; leave --weights out", weights is not None)
    if (folder / "encoder.json").exists():
        from edgessl.checkpoint import read_checkpoint

        _only(options, (), f"checkpoint {folder}")
        _refuse(f"the pool of a checkpoint was chosen when it was trained; leave --pool out for {folder}", bool(pool))
        encoder, facts = read_checkpoint(folder)
        if input is not None and input != encoder.input:
            raise InputError(
                f"the encoder of {folder} takes {encoder.input.shape} and was trained so, not {input.shape}"
            )
        return Loaded(encoder=encoder, facts=facts, pooling=_pool_of(encoder), preprocessing=preprocessing_of(encoder))
    from edgessl.encoders.huggingface import load_folder

    _only(options, ("tail",), f"Hugging Face folder {folder}")
    return Loaded(**load_folder(folder, input, pool, **options))


def _pool_of(encoder: EncoderModule) -> str:
    from edgessl.encoders.pooling import TokenPool
    from edgessl.encoders.timm_models import pooling_of
    from edgessl.encoders.vit import Head

    first = encoder.pool[0] if isinstance(encoder.pool, nn.Sequential) else encoder.pool
    if isinstance(first, TokenPool):
        return first.kind
    if isinstance(first, Head):
        return pooling_of(first.model)
    return str(encoder.options.get("pool", "mean"))


def _hint(source: str) -> str:
    from edgessl.encoders import timm_models

    if source in ENCODERS:
        return f"it is untrained; type: edgessl pretrain DATA --encoder {source} -o NEW_FOLDER, and export that folder"
    if source in timm_models.names():
        return f"type timm:{source}"
    return f"there is no such folder. Give {FORMS}"


def _only(options: Mapping[str, Any], known: tuple[str, ...], owner: str) -> None:
    for option in options:
        if option not in known:
            raise UnknownNameError(f"setting of {owner},", option, known or ["none"])


def _refuse(reason: str, condition: bool) -> None:
    if condition:
        raise InputError(reason)
