"""A vision encoder from a local Hugging Face folder: config.json and model.safetensors; no network, no code from the folder."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgessl.encoders.base import require_image
from edgessl.encoders.parts import Parts, encoder_of
from edgessl.encoders.pooling import MapPool, TokenPool
from edgessl.errors import InputError, MissingExtraError, UnknownNameError
from edgessl.signals import InputSpec, image_spec

#: model_type of config.json -> (class of transformers, its blocks, its last norm, its own pool)
MODELS = {
    "dinov2": ("Dinov2Model", "encoder.layer", "layernorm", "cls"),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "encoder.layer", "layernorm", "cls"),
    "dinov3_convnext": ("DINOv3ConvNextModel", "model.stages", "layer_norm", "mean"),
    "dinov3_vit": ("DINOv3ViTModel", "model.layer", "norm", "cls"),
    "siglip": ("SiglipVisionModel", "encoder.layers", "post_layernorm", "attention"),
    "siglip_vision_model": ("SiglipVisionModel", "encoder.layers", "post_layernorm", "attention"),
    "vit": ("ViTModel", "layers", "layernorm", "cls"),
}
#: What a folder may hold or lack beside the encoder: heads, masks and poolers of other tasks.
BESIDE = ("classifier.", "pooler.", "text_model.", "logit_", "mask_token", "embeddings.mask_token", "vit.pooler.")
#: Pillow's numbers in preprocessor_config.json.
RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def load_folder(folder: Path, input: InputSpec | None, pool: str, *, tail: int = 1) -> dict[str, Any]:
    """Read the folder and take the model apart: the fields of `load.Loaded`.

    Raises:
        InputError: A file is missing, the weights do not fit, or the model cannot take this size or pool.
        UnknownNameError: The model is of a type that is not in `MODELS`.
        MissingExtraError: transformers is not installed.
    """
    from edgessl.encoders.origin import preprocessing_of, versions_of, weights_facts

    config = _json(folder, "config.json", needed=True)
    kind = str(config.get("model_type", ""))
    if kind not in MODELS:
        raise UnknownNameError(f"model_type in {folder / 'config.json'} that edgessl takes apart,", kind, MODELS)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise InputError(
            f"{folder} has no model.safetensors; save it with model.save_pretrained(FOLDER), in one file. A pickled "
            "pytorch_model.bin is never read"
        )
    said = _json(folder, "preprocessor_config.json", needed=False)
    model = _read(folder, kind)
    size, crop = _size(said, model.config)
    spec = input or image_spec(*size)
    patch = int(getattr(model.config, "patch_size", 1) or 1)
    require_image(spec, kind, multiple=patch)
    own = MODELS[kind][3]
    if kind.startswith("siglip") and not getattr(model, "use_head", True):
        own = "mean"
    normalized = bool(said.get("do_normalize", True))
    encoder = _taken_apart(
        model,
        kind,
        spec,
        pool or own,
        tail=tail,
        mean=said.get("image_mean") if normalized else [0.0] * 3,
        std=said.get("image_std") if normalized else [1.0] * 3,
    )
    encoder.name, encoder.options = f"{kind}-{folder.resolve().name}", {"tail": tail} | ({"pool": pool} if pool else {})
    facts: dict[str, Any] = {"model_type": kind, "versions": versions_of("transformers")} | weights_facts(weights)
    licence = _licence(folder, config)
    return {
        "encoder": encoder,
        "facts": facts | ({"license": licence} if licence else {}),
        "pooling": pool or own,
        "preprocessing": preprocessing_of(
            encoder,
            interpolation=RESAMPLING.get(int(said.get("resample", 3)), "bicubic"),
            crop=crop,
            fit="crop" if said.get("do_center_crop") or "shortest_edge" in str(said.get("size")) else "stretch",
        ),
    }


class Embed(nn.Module):
    """Patches and positions of one image size; class and register tokens with their positions stand in front.

    Attributes:
        prefix: `(1, prefix, channels)`.
        positions: `(1, patches, channels)`, resized to this image size once and for all.
    """

    def __init__(self, embeddings: Any, images: Tensor) -> None:
        super().__init__()
        self.project = next(module for module in embeddings.modules() if isinstance(module, nn.Conv2d))
        patches = self._patches(images)
        try:
            tokens = embeddings(images, interpolate_pos_encoding=True)
        except TypeError:  # the DINO families always interpolate
            tokens = embeddings(images)
        count = tokens.shape[1] - patches.shape[1]
        self.prefix = nn.Parameter(tokens[:1, :count].clone())
        self.positions = nn.Parameter((tokens[:, count:] - patches)[:1].clone())

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images `(batch, 3, height, width)` -> tokens `(batch, tokens, channels)`."""
        tokens = self._patches(images) + self.positions
        if self.prefix.shape[1] == 0:
            return tokens
        return torch.cat([self.prefix.expand(tokens.shape[0], -1, -1), tokens], 1)

    def _patches(self, images: Tensor) -> Tensor:
        return torch.as_tensor(self.project(images)).flatten(2).transpose(1, 2)  # (batch, patches, channels)


class Layer(nn.Module):
    """One block, with the rotary positions of the one image size as constants where it takes any."""

    def __init__(self, layer: nn.Module, rotary: tuple[Tensor, Tensor] | None) -> None:
        super().__init__()
        self.layer, self.rotary = layer, rotary is not None
        for name, value in zip(("cosine", "sine"), rotary or (), strict=False):
            self.register_buffer(name, value.clone(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(batch, tokens, channels)` -> the same."""
        extra = {"position_embeddings": (self.cosine, self.sine)} if self.rotary else {}
        given = self.layer(tokens, attention_mask=None, **extra)
        return torch.as_tensor(given[0] if isinstance(given, tuple) else given)


class PooledNorm(nn.Module):
    """Pool, then the last norm: DINOv3's ConvNeXt."""

    def __init__(self, pool: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.pool, self.norm = pool, norm

    def forward(self, maps: Tensor) -> Tensor:
        """`(batch, channels, height, width)` -> `(batch, channels)`."""
        return torch.as_tensor(self.norm(self.pool(maps)))


@torch.no_grad()
def _taken_apart(model: Any, kind: str, spec: InputSpec, pool: str, **options: Any) -> Any:
    _, blocks, norm_name, own = MODELS[kind]
    layers, norm = list(model.get_submodule(blocks)), getattr(model, norm_name)
    tail = options.pop("tail")
    if not 0 < tail < len(layers):
        raise InputError(f"a tail of {tail} blocks leaves no trunk in {len(layers)}; choose 1 to {len(layers) - 1}")
    if kind == "dinov3_convnext":
        head: nn.Module = PooledNorm(MapPool(pool), norm)
        parts = Parts(stages=layers, pool=head)
        whole = (lambda images: model(images).pooler_output) if pool == own else None
        return encoder_of([lambda: parts], whole, spec, tail=tail, **options)
    images = torch.zeros(2, 3, *spec.shape[:2])
    embed = Embed(model.embeddings, images)
    rotary = model.rope_embeddings(images) if hasattr(model, "rope_embeddings") else None
    token_pool = TokenPool(
        pool,
        prefix=embed.prefix.shape[1],
        has_class=hasattr(model.embeddings, "cls_token"),
        attention=getattr(model, "head", None),
    )
    parts = Parts(stages=[embed, *(Layer(layer, rotary) for layer in layers), norm], pool=token_pool, spread=True)
    arguments = {"interpolate_pos_encoding": True} if kind.startswith(("vit", "siglip")) else {}
    whole_of: Callable[[Tensor], Tensor] = lambda images: token_pool(model(images, **arguments).last_hidden_state)  # noqa: E731
    return encoder_of([lambda: parts], whole_of, spec, tail=tail + 1, **options)  # the norm is a stage of the tail too


def _read(folder: Path, kind: str) -> Any:
    if find_spec("transformers") is None:
        raise MissingExtraError("transformers", "hf")
    from edgessl.vision import vision_module

    vision_module("torchvision")  # transformers imports it, and would stop where its wheel does not match torch's
    with _quiet():
        import transformers

        reader = getattr(transformers, MODELS[kind][0], None)
        if reader is None:
            raise InputError(
                f"transformers {transformers.__version__} has no {MODELS[kind][0]}; pip install -U transformers"
            )
        try:
            model, told = reader.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="eager",  # fused attention has no exported gradient
                dtype=torch.float32,
                output_loading_info=True,
            )
        except Exception as error:  # transformers raises almost anything for a folder that is not whole
            raise InputError(f"{folder} cannot be read as {kind}: {error}") from error
    missing = [name for name in told["missing_keys"] if not name.startswith(BESIDE)]
    unknown = [name for name in told["unexpected_keys"] if not name.startswith(BESIDE)]
    shapes = [str(each[0] if isinstance(each, tuple) else each) for each in told["mismatched_keys"]]
    problems = [
        f"{len(names)} {what}: {', '.join(sorted(names)[:4])}{' ...' if len(names) > 4 else ''}"
        for what, names in (("names missing", missing), ("names unknown", unknown), ("shapes differ", shapes))
        if names
    ]
    if problems:
        raise InputError(f"{folder / 'model.safetensors'} does not fit its config.json: {'; '.join(problems)}")
    return model.eval()


def _size(said: dict[str, Any], config: Any) -> tuple[tuple[int, int], float]:
    """Height and width that the model is given, and the share of the short side that is kept of the picture."""
    size, crop = said.get("size"), said.get("crop_size")
    size = {"height": size, "width": size} if isinstance(size, int) else size or {}
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop or {}
    if said.get("do_center_crop") and crop:
        short = size.get("shortest_edge") or min(size.get("height", crop["height"]), size.get("width", crop["width"]))
        return (crop["height"], crop["width"]), min(crop["height"], crop["width"]) / short
    if "height" in size:
        return (size["height"], size["width"]), 1.0
    own = size.get("shortest_edge") or getattr(config, "image_size", None) or 224
    return (own, own) if isinstance(own, int) else (int(own[0]), int(own[1])), 1.0


def _json(folder: Path, name: str, *, needed: bool) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        if needed:
            raise InputError(
                f"{folder} holds neither encoder.json (a checkpoint) nor config.json (a Hugging Face folder); "
                "give another folder, timm:NAME or package.module:factory"
            )
        return {}
    try:
        content = json.loads(path.read_text())
    except (UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path} is no readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not an object")
    return content


def _licence(folder: Path, config: dict[str, Any]) -> str:
    """The licence that the configuration or the head of the model card states."""
    card = folder / "README.md"
    head = card.read_text(errors="replace").split("---")[1:2] if card.is_file() else []
    lines = [line.partition(":")[2].strip() for line in "".join(head).splitlines() if line.startswith("license:")]
    return str(config.get("license") or (lines[0] if lines else ""))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no advice of transformers on the terminal."""
    logger = logging.getLogger("transformers")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging as theirs

        bars = theirs.is_progress_bar_enabled()
        theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
            if bars:
                theirs.enable_progress_bar()  # type: ignore[no-untyped-call]
