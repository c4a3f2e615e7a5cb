"""`edgessl recipes`: what can be trained, and whether it learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgessl.cli.options import Json, Series, Size, parsed_series, parsed_size
from edgessl.cli.output import result, table, talk
from edgessl.errors import GateError, InputError

if TYPE_CHECKING:
    from edgessl.check import Check

EXAMPLE = "edgessl recipes --check simclr labelled/ --size 32 --json"


def recipes(
    data: Annotated[
        str,
        typer.Argument(metavar="[DATA]", help="For --check: samples with labels, as `edgessl evaluate` takes them."),
    ] = "",
    check: Annotated[str, typer.Option(metavar="NAME", help="Test this recipe on DATA, with a negative control.")] = "",
    encoder: Annotated[str, typer.Option(help="For --check; default: the one this list shows.")] = "",
    steps: Annotated[int, typer.Option(help="For --check: of each training.")] = 300,
    batch: Annotated[int | None, typer.Option(help="For --check: samples per step; default: the recipe's.")] = None,
    seeds: Annotated[str, typer.Option(help="For --check: each is two trainings.")] = "0,1,2",
    margin: Annotated[float, typer.Option(help="For --check: least mean gain of macro-F1, 0 to 1.")] = 0.02,
    size: Size = "",
    series: Series = [],  # noqa: B006, typer reads it and nobody changes it
    as_json: Json = False,
) -> None:
    """List what can be trained, or test a recipe with --check.

    Beside these encoders, any image model of timm can be named. --check trains the recipe for a short
    while, and again with views of different samples held against each other, from which nothing can be
    learned. It passes when a linear probe on its encoder beats the untrained one by the margin, and the
    control does not. DATA needs labels. Exit code 3 when it fails.
    """
    if check:
        _check(check, data, encoder, steps, batch, seeds, margin, size, series, as_json=as_json)
    elif data:
        raise InputError(f"{data!r} is looked at only by a check; type edgessl recipes --check NAME {data}")
    else:
        _list(as_json=as_json)


def _list(*, as_json: bool) -> None:
    from edgessl.encoders import ENCODERS
    from edgessl.recipes import RECIPES

    methods = [
        {
            "recipe": name,
            "what it is": entry.about,
            "learns from": ", ".join(entry.kinds),
            "such as": f"--recipe {name} --encoder {entry.encoder[0]}",
        }
        for name, entry in RECIPES.items()
    ]
    encoders = [{"encoder": name, "what it is": about} for name, (_, _, about) in ENCODERS.items()]
    result({"recipes": methods, "encoders": encoders}, "\n\n".join(map(table, (methods, encoders))), as_json=as_json)


def _check(
    name: str,
    data: str,
    encoder: str,
    steps: int,
    batch: int | None,
    seeds: str,
    margin: float,
    size: str,
    series: list[str],
    *,
    as_json: bool,
) -> None:
    if not data:
        raise InputError(f"a check needs samples with labels; type edgessl recipes --check {name} DATA")
    numbers, shape = _numbers(seeds), parsed_size(size)
    from edgessl.check import check
    from edgessl.sources import has_test, open_source
    from edgessl.trainer import Run

    source = open_source(data, size=shape, windowing=parsed_series(series))
    talk(f"{name}: {2 * len(numbers)} trainings of {steps} steps on {len(source)} samples")
    found = check(
        name,
        source,
        open_source(data, split="test", spec=source.spec) if has_test(data) else None,
        encoder=encoder,
        seeds=numbers,
        margin=margin,
        run=Run(steps=steps, batch=batch, progress=False),
    )
    result(found.to_json(), _text(found), as_json=as_json)
    if found.reasons:
        raise GateError(f"recipe {name!r} fails its check: {'; '.join(found.reasons)}")


def _text(found: Check) -> str:
    rows = [
        {
            "seed": row.seed,
            "untrained": row.untrained,
            "trained": row.trained,
            "gain": row.trained - row.untrained,
            "control": row.control,
            "control gain": row.control - row.untrained,
        }
        for row in found.seeds
    ]
    heading = f"{found.recipe} with {found.encoder}, {found.steps} steps: macro-F1 of a linear probe"
    verdict = "fails" if found.reasons else "passes"
    return f"{heading}\n\n{table(rows)}\n\n{found.recipe} {verdict} with a margin of {found.margin:g}"


def _numbers(seeds: str) -> list[int]:
    words = [word.strip() for word in seeds.split(",")]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise InputError(f"{seeds!r} are no seeds; type --seeds 0,1,2")
    return [int(word) for word in words]
