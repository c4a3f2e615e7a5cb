"""The one place that imports torchvision, timm and lightly.

PyPI's torchvision is linked against CUDA. Beside a CPU build of torch its compiled operators do not load, and
`import torchvision` stops at `operator torchvision::nms does not exist`, because it registers a fake for an operator
that nobody defined. Declaring the schemas first lets the import pass; the operators themselves stay absent, and nothing
here calls them. Where the wheels match, the operators load and nothing is declared.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch

from edgessl.errors import MissingExtraError

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a Library takes its operators back when it is collected


def vision_module(name: str) -> ModuleType:
    """Import `torchvision`, `timm`, `lightly` or one of their modules.

    Raises:
        MissingExtraError: The package is not installed.
    """
    package = name.partition(".")[0]
    if find_spec(package) is None:
        raise MissingExtraError(package, "train")
    try:
        return import_module(name)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error) or _declared:
            raise
    _forget_half_imported()
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(library)
    return import_module(name)


def _forget_half_imported() -> None:
    import sys

    for module in [key for key in sys.modules if key.partition(".")[0] in ("torchvision", "timm", "lightly")]:
        del sys.modules[module]
