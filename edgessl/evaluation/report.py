"""The folder that `edgessl evaluate -o` writes."""

from __future__ import annotations

import json
from pathlib import Path

from edgessl.evaluation.pictures import draw_curves, draw_maps
from edgessl.evaluation.results import Evaluation
from edgessl.files import atomic_folder

FACTS, MAPS, CURVES = "evaluation.json", "maps.png", "curves.png"


def write_report(folder: Path, found: Evaluation, *, overwrite: bool = False) -> None:
    """Write `evaluation.json`, `maps.png` where maps were asked for, and `curves.png` where there is a curve.

    Args:
        folder: To make, whole or not at all.
        found: What to write.
        overwrite: Replace the folder.

    Raises:
        OutputExistsError: `folder` exists and `overwrite` is false.
        MissingExtraError: matplotlib is not installed.
    """
    with atomic_folder(folder, overwrite=overwrite) as temporary:
        (temporary / FACTS).write_text(json.dumps(found.to_json(), indent=2) + "\n")
        if found.maps:
            draw_maps(temporary / MAPS, found)
        draw_curves(temporary / CURVES, found)
