"""Options that several commands share, and what turns their text into values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgessl.errors import InputError

if TYPE_CHECKING:
    from edgessl.runtimes.engines.base import EngineSettings
    from edgessl.sources.windows import Windowing

_DATA = (
    "Folder of images, .npz file, recordings of sensors (.csv, .parquet, .hea, or a folder of them), image shards (.tar, a "
    "folder of them, or shards:PATH/{000..015}.tar), a video, an .mcap file or a ROS bag (bag:PATH?topic=/camera), or "
    "demo:LAP (day, revisit, night, night_unseen)."
)
_LIVE = " Also live: camera:0, or - for standard input."
Data = Annotated[str, typer.Argument(metavar="DATA", help=_DATA)]
Samples = Annotated[str, typer.Argument(metavar="SOURCE", help=_DATA)]
LiveSamples = Annotated[str, typer.Argument(metavar="SOURCE", help=_DATA + _LIVE)]
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder NAME.edgessl written by `edgessl export`.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output where it exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Strict = Annotated[bool, typer.Option("--strict", help="Make a sample that cannot be read or used an error.")]
Seed = Annotated[int, typer.Option(help="Of everything random.")]
Size = Annotated[
    str, typer.Option(help="Frames are resized to this: 64, or 48x64 (height x width). Default: their own.")
]
Split = Annotated[str, typer.Option(help="Part of an .npz file that has both: train or test.")]
Series = Annotated[
    list[str],
    typer.Option(
        "--series",
        metavar="KEY=VALUE",
        help="How recordings are cut, such as window=2.56s; also hop, rate_hz, channels=ax,ay, time=NAME:ms, label=NAME and "
        "gap_s. What is left out comes from the encoder or the recordings; may be repeated.",
    ),
]
EngineName = Annotated[str, typer.Option(help="What runs the graphs; `edgessl doctor` lists what is installed.")]
Threads = Annotated[int, typer.Option(help="Threads per run; 0 lets the engine choose.")]
LowPower = Annotated[
    bool, typer.Option("--low-power", help="One thread that never waits awake: slower, and less energy per sample.")
]
Precision = Annotated[str, typer.Option(help="Of the graphs: auto, fp32, fp16 or int8.")]


def engine_settings(threads: int, *, low_power: bool) -> EngineSettings:
    """What `--threads` and `--low-power` ask of the engine.

    Raises:
        InputError: Both are given, or the threads cannot be.
    """
    from edgessl.runtimes.engines.base import LOW_POWER, EngineSettings

    if low_power and threads:
        raise InputError(f"--low-power is one thread, and --threads {threads} asks for others; leave one out")
    return LOW_POWER if low_power else EngineSettings(threads=threads)


def parsed_size(text: str, option: str = "--size") -> tuple[int, int] | None:
    """`"64"` -> `(64, 64)`, `"48x64"` -> `(48, 64)` (height, width), `""` -> None.

    Raises:
        InputError: `text` is no size.
    """
    if not text:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"{text!r} is no size; type {option} 64 or {option} 48x64 (height x width)")
    return int(parts[0]), int(parts[-1])


def parsed_series(settings: Sequence[str]) -> Windowing | None:
    """`["window=2.56s", "rate_hz=50"]` -> how recordings are cut; None for no settings.

    Raises:
        InputError: There is no such setting, or it has no such value.
    """
    if not settings:
        return None
    from edgessl.sources.windows import Windowing

    return Windowing.from_settings(parsed_settings(settings, "--series window=2.56s"))


def parsed_settings(settings: Sequence[str], example: str = "--set temperature=0.2") -> dict[str, Any]:
    """`["depth=2", "views.flip=0"]` -> `{"depth": 2, "views": {"flip": 0}}`; values are JSON where they can be.

    Raises:
        InputError: A setting is not KEY=VALUE, or is given twice.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not (key and equals):
            raise InputError(f"{setting!r} is no setting; type {example.split()[0]} KEY=VALUE, such as {example}")
        *groups, name = key.split(".")
        inner = values
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise InputError(f"{group!r} is set in one word and by its parts, {key!r}; leave one out")
        if name in inner:
            raise InputError(f"{key!r} is set twice; leave one out")
        try:
            inner[name] = json.loads(text)
        except ValueError:
            inner[name] = text
    return values
