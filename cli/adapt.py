"""`edgessl adapt`: embed and learn, without labels."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Annotated

import typer

from edgessl.cli.options import (
    BundlePath,
    EngineName,
    Json,
    Overwrite,
    Precision,
    Samples,
    Seed,
    Series,
    Split,
    Strict,
    parsed_series,
)
from edgessl.cli.output import progress, result, talk_about
from edgessl.errors import InputError, UnknownNameError
from edgessl.files import refuse_existing

EXAMPLE = "edgessl adapt robot.edgessl frames/ --state state/ -o vectors.npz"

#: what may be typed -> what a learner calls it
LEVELS = {"0": "recenter", "1": "ports", "2": "tail"}


def adapt(
    bundle: BundlePath,
    source: Samples,
    state: Annotated[Path, typer.Option(help="Folder that keeps what was learned; used again next time.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="NAME.npz, NAME.parquet, NAME.jsonl, or NAME.index (a folder).")
    ],
    level: Annotated[str, typer.Option(help="How far it may go: auto, 0 recenter, 1 ports, 2 tail.")] = "auto",
    log: Annotated[
        Path | None, typer.Option(help="Write what was learned and refused, one JSON object a line.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the same over the frames, as an .svg file.")] = None,
    engine: EngineName = "auto",
    precision: Precision = "auto",
    batch: Annotated[int, typer.Option(help="Samples per observation.")] = 32,
    split: Split = "train",
    series: Series = [],  # noqa: B006, typer reads it and nobody changes it
    seed: Seed = 0,
    strict: Strict = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Embed every sample of SOURCE, and learn from them.

    Samples are taken in order, and nothing is learned until the guard sees a shift. OUTPUT is written as
    `edgessl embed` writes it. A state that is there is gone on with; --overwrite replaces OUTPUT, the log and
    the drawing, never the state.
    """
    _refuse_same(state, bundle, source, {"-o": output, "--log": log, "--plot": plot})
    if level not in (known := ("auto", *LEVELS, *LEVELS.values())):
        raise UnknownNameError("level", level, known)
    from edgessl.runtimes.sinks import is_folder, writer_for

    refuse_existing(output, overwrite=overwrite, file="" if is_folder(output) else "-o vectors.npz")
    write = writer_for(output)
    if log is not None:
        refuse_existing(log, overwrite=overwrite, file="--log events.jsonl")
    from edgessl.runtimes.adapt.drawing import refuse_plot, write_plot
    from edgessl.runtimes.adapt.history import history_of

    if plot is not None:
        refuse_plot(plot, overwrite=overwrite, option="--plot")
    from edgessl.runtimes.encoder import open_encoder
    from edgessl.runtimes.sinks.offline import held_of, space_of
    from edgessl.runtimes.sinks.whole import write_whole
    from edgessl.runtimes.vectors import vectors_of, write_events
    from edgessl.sources import open_source

    with open_encoder(bundle, engine=engine, precision=precision) as encoder:
        windowing = parsed_series(series)
        samples = open_source(
            source, split=split, strict=strict, windowing=windowing, spec=encoder.input, labelled=False
        )
        with (
            encoder.learner(state, level=LEVELS.get(level, level), seed=seed) as learner,
            progress("adapt", len(samples)) as advance,
        ):
            found = vectors_of(
                samples,
                learner.observe,
                batch=batch,
                strict=strict,
                advance=advance,
                versions=lambda: learner.versions,
            )
        events = learner.events  # the last one tells of the snapshot that closing wrote
        write_whole(output, write, held_of(found, space_of(encoder)))
        if log is not None:
            write_events(log, events)
        if plot is not None:
            write_plot(plot, history_of(events), title=f"{bundle.resolve().name}, {state.resolve().name}")
        written = {"output": str(output), "state": str(state), "plot": str(plot) if plot else None}
        facts = written | encoder.info() | found.counts() | {"events": events}
    talk_about(found)
    kinds = Counter(str(event["kind"]) for event in events)
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"
    text = f"{len(found.names)} vectors of {encoder.dim} in space {encoder.space_id} -> {output}; events: {told}"
    result(facts, text, as_json=as_json)


def _refuse_same(state: Path, bundle: Path, source: str, written: dict[str, Path | None]) -> None:
    """One path for two things would lose one of them."""
    from edgessl.bundle import MANIFEST

    given = {option: path for option, path in written.items() if path is not None}
    for (one, path), (other, same) in combinations(given.items(), 2):
        if path.resolve() == same.resolve():
            raise InputError(f"{path} is both {one} and {other}; give {other} another name")
    for what, path in {"the bundle": bundle, "SOURCE": Path(source).expanduser(), **given}.items():
        if path.resolve() == state.resolve():
            raise InputError(f"--state {state} is {what}; give a folder of its own, such as --state state")
    if (state / MANIFEST).is_file():
        raise InputError(f"--state {state} is a bundle; give a folder of its own, such as --state state")
