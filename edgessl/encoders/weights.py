"""A weights file -> the tensors of one model: prefixes of wrappers and classifiers removed, and said; never pickle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edgessl.errors import InputError

#: Keys of a training's file that hold the weights, the average of them first.
CONTAINERS = ("state_dict_ema", "model_ema", "teacher", "state_dict", "model", "student", "weights", "module")
#: What a classifier is called; a weights file may have one, an encoder has not.
CLASSIFIERS = ("head.", "head_dist.", "fc.", "classifier.", "last_linear.", "linear.", "heads.")
SHOWN = 4  #: names in a message


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What was done to make a file fit.

    Attributes:
        container: Keys that were opened to reach the weights, as in `teacher`.
        prefix: What stood in front of each name.
        dropped: How many tensors were not the encoder's, by the first part of their name.
    """

    container: str = ""
    prefix: str = ""
    dropped: dict[str, int] = field(default_factory=dict)


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """Tensors by name, and the container they were in.

    `.safetensors` is read as such; anything else by `torch.load(weights_only=True)`, which runs no code.

    Raises:
        InputError: No such file, damaged, or it needs pickle.
    """
    if not path.is_file():
        raise InputError(f"no weights file {path}; give a .safetensors file, or a .pth that torch.load reads")
    if path.suffix == ".safetensors":
        try:
            return load_file(path), ""
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is no readable safetensors file: {error}") from error
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises almost anything for a file that is not its own
        raise InputError(
            f"{path} cannot be read without running code from it ({type(error).__name__}); where you trust it, type: "
            "python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('FILE', weights_only=False), "
            "'FILE.safetensors')\""
        ) from error
    opened: list[str] = []
    while isinstance(content, Mapping) and not any(isinstance(each, Tensor) for each in content.values()):
        inside = next((key for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inside is None:
            break
        opened.append(inside)
        content = content[inside]
    if not isinstance(content, Mapping) or not any(isinstance(each, Tensor) for each in content.values()):
        raise InputError(f"{path} holds no weights by name; save model.state_dict()")
    return {str(key): each for key, each in content.items() if isinstance(each, Tensor)}, ".".join(opened)


def load_weights(
    model: nn.Module, path: Path, *, convert: Callable[[dict[str, Tensor]], Mapping[str, Any]] | None = None
) -> Fitted:
    """Read `path` into `model`: every weight of the model must be there, in its shape.

    Args:
        model: Its buffers and parameters are filled.
        path: See `read_weights`.
        convert: Renames or resizes what another project wrote, such as timm's filter of positions.

    Raises:
        InputError: Names are missing or unknown, or shapes differ; the message has the first few.
    """
    state, container = read_weights(path)
    wanted = model.state_dict()
    prefix = _prefix(list(state), list(wanted))
    mine = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    dropped = Counter(name.partition(".")[0] for name in state if not name.startswith(prefix))
    if convert is not None:
        mine = {name: tensor for name, tensor in convert(mine).items() if isinstance(tensor, Tensor)}
    for name in [name for name in mine if name not in wanted and name.startswith(CLASSIFIERS)]:
        del mine[name]
        dropped[name.partition(".")[0]] += 1
    missing = [name for name in wanted if name not in mine and not name.endswith("num_batches_tracked")]
    unknown = [name for name in mine if name not in wanted]
    shapes = [
        f"{name} {tuple(mine[name].shape)} instead of {tuple(each.shape)}"
        for name, each in wanted.items()
        if name in mine and mine[name].shape != each.shape
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:SHOWN])}{' ...' if len(names) > SHOWN else ''}"
        for what, names in (("names missing", missing), ("names unknown", unknown), ("shapes differ", shapes))
        if names
    ]
    if problems:
        raise InputError(
            f"{path} does not fit {type(model).__name__} ({len(wanted)} tensors; the file has {len(state)}): "
            f"{'; '.join(problems)}. Give the file of this very architecture"
        )
    model.load_state_dict(mine, strict=False)  # all that may be missing is num_batches_tracked
    return Fitted(container=container, prefix=prefix, dropped=dict(dropped))


def _prefix(given: list[str], wanted: list[str]) -> str:
    """What stands in front of the model's names: the commonest, a teacher before a student, the shortest first."""
    ends = set(wanted)
    heads = Counter(name[: len(name) - len(end)] for name in given for end in _endings(name) if end in ends)
    if not heads:
        return ""
    return min(heads, key=lambda prefix: (-heads[prefix], "teacher" not in prefix, len(prefix), prefix))


def _endings(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]
