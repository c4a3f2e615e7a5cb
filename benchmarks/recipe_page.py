"""docs/recipes.md: every recipe of the table with what the result files say of it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from recipe_settings import command, goal_of, kinds_of, settings_of

from edgessl.recipes import RECIPES, recipe_class

RESULTS = Path(__file__).parent / "results" / "recipes"
PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"

_HEAD = """# Recipes

Written by `python benchmarks/recipes.py --page` from `benchmarks/results/recipes/`; `benchmarks/recipes.py` measures.

Images: CIFAR-10 as JPEG files, a linear probe on 10,000 training images, accuracy on the 10,000 test images. Series: phone and
watch, a linear probe on the training windows, macro-F1 on the windows of other people. Figures are in per cent, means over the
seeds with the standard deviation. Untrained is the encoder that the training began with. The control is the same recipe with
views that belong to different samples: it must fail. A recipe passes when its mean gain reaches the goal, every seed gains, and
the control gains less than the goal and less than the recipe. These are short trainings on one core, minutes each: they show
that a recipe works, not which one is best.
"""
_COLUMNS = ("recipe", "encoder", "steps", "seconds", "untrained", "trained", "gain", "goal", "control", "passes")
_TITLES = {"image": "Images", "series": "Series"}


def page() -> str:
    """The text of the page for the results that are there."""
    results = {name: _kinds(name) for name in RECIPES}
    parts = [_HEAD]
    for kind, title in _TITLES.items():
        names = [name for name in RECIPES if kind in kinds_of(name)]
        lines = [" | ".join(_row(name, kind, results[name].get(kind))) for name in names]
        head = [" | ".join(_COLUMNS), " | ".join("---" for _ in _COLUMNS)]
        parts.append("\n".join([f"## {title}", "", *(f"| {line} |" for line in [*head, *lines]), ""]))
    parts.append("## One by one\n")
    return "\n".join([*parts, *(_section(name) for name in RECIPES)])


def _row(name: str, kind: str, result: dict[str, Any] | None) -> list[str]:
    settings, goal = settings_of(name, kind), f"{100 * goal_of(name, kind):+.0f}"
    start = [f"[{name}](#{name})", settings.encoder]
    if result is None or "gain" not in result["summary"]:
        return [*start, str(settings.steps), "not measured yet", "", "", "", goal, "", ""]
    found, measure = result["summary"], result["measure"]
    spread = f" ± {100 * found['gain_sd']:.1f}" if "gain_sd" in found else ""
    control = f"{100 * found['control_gain']:+.1f}" if "control_gain" in found else "not run"
    return [
        *start,
        str(result["settings"]["steps"]),
        f"{found['seconds']:.0f}",
        f"{100 * found['untrained'][measure]:.1f}",
        f"{100 * found['trained'][measure]:.1f}",
        f"{100 * found['gain']:+.1f}{spread}",
        goal,
        control,
        "yes" if found["passes"] else "no",
    ]


def _section(name: str) -> str:
    entry = RECIPES[name]
    commands = "\n".join(command(name, settings_of(name, kind)) for kind in kinds_of(name))
    paper = inspect.cleandoc(recipe_class(name).__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return (
        f"### {name}\n\n{entry.about}. Learns from: {', '.join(entry.kinds)}.\n\n{paper}\n\n```bash\n{commands}\n```\n"
    )


def _kinds(name: str) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())["kinds"]) if path.exists() else {}
