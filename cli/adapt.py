"""`edgessl adapt`: embed and learn, without labels."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, closing, nullcontext
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgessl.cli.options import (
    BundlePath,
    EngineName,
    Json,
    LiveSamples,
    LowPower,
    Overwrite,
    Precision,
    Seed,
    Series,
    Split,
    Strict,
    Threads,
    engine_settings,
    parsed_series,
)
from edgessl.cli.output import progress, talk
from edgessl.cli.sinking import (
    Count,
    Output,
    Seconds,
    Target,
    check_live,
    counted,
    embed_stream,
    quiet,
    standard_output,
    stopped,
    writer_of,
)
from edgessl.errors import InputError, UnknownNameError
from edgessl.files import refuse_existing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgessl.runtimes.adapt.learner import Learner
    from edgessl.runtimes.sinks import Sink
    from edgessl.runtimes.sinks.stop import Stop
    from edgessl.sources import Source

EXAMPLE = "edgessl adapt robot.edgessl frames/ --state state/ -o vectors.npz"

#: what may be typed -> what a learner calls it
LEVELS = {"0": "recenter", "1": "ports", "2": "tail"}


def adapt(
    bundle: BundlePath,
    source: LiveSamples,
    state: Annotated[Path, typer.Option(help="Folder that keeps what was learned; used again next time.")],
    output: Output,
    level: Annotated[str, typer.Option(help="How far it may go: auto, 0 recenter, 1 ports, 2 tail.")] = "auto",
    log: Annotated[
        Path | None, typer.Option(help="Write what was learned and refused, one JSON object a line.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the same over the frames, as an .svg file.")] = None,
    engine: EngineName = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    low_power: LowPower = False,
    batch: Annotated[int, typer.Option(help="Samples per observation.")] = 32,
    split: Split = "train",
    series: Series = [],  # noqa: B006, typer reads it and nobody changes it
    seconds: Seconds = None,
    count: Count = None,
    seed: Seed = 0,
    strict: Strict = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Embed every sample of SOURCE, and learn from them.

    Samples are taken in order, and nothing is learned until the guard sees a shift. OUTPUT is written as
    `edgessl embed` writes it. A state that is there is gone on with; --overwrite replaces OUTPUT, the log and
    the drawing, never the state.

    Ctrl-C and SIGTERM end it between two batches, and what was learned is in the state. A live stream (camera:0, or -
    for standard input) runs until then, or --seconds or --count, and OUTPUT is written; of anything else it is not.
    """
    files = {"-o": output, "--log": log, "--plot": plot}
    _refuse_same(state, bundle, source, {option: path for option, path in files.items() if path != Path("-")})
    if level not in (known := ("auto", *LEVELS, *LEVELS.values())):
        raise UnknownNameError("level", level, known)
    from edgessl.runtimes.sinks.journal import unfinished

    live = check_live(source, seconds, count)
    write = writer_of(output, overwrite=overwrite or (live and unfinished(output)))
    if log is not None:
        refuse_existing(log, overwrite=overwrite, file="--log events.jsonl")
    from edgessl.runtimes.adapt.drawing import refuse_plot, write_plot
    from edgessl.runtimes.adapt.history import history_of

    if plot is not None:
        refuse_plot(plot, overwrite=overwrite, option="--plot")
    windowing = parsed_series(series)
    from edgessl.runtimes.encoder import open_encoder
    from edgessl.runtimes.engines.choice import sentence
    from edgessl.runtimes.sinks.stop import Stop
    from edgessl.runtimes.vectors import write_events
    from edgessl.sources import open_source

    settings = engine_settings(threads, low_power=low_power)
    with (
        open_encoder(bundle, engine=engine, precision=precision, settings=settings) as encoder,
        Stop(at_once=False) as stop,
    ):
        if encoder.chosen:
            talk(sentence(encoder.chosen))
        target = Target(encoder, output, write, overwrite)
        samples = (
            None
            if live
            else open_source(
                source, split=split, strict=strict, windowing=windowing, spec=encoder.input, labelled=False
            )
        )
        with encoder.learner(state, level=LEVELS.get(level, level), seed=seed) as learner:
            if samples is None:
                found = embed_stream(
                    target,
                    source,
                    learner.observe,
                    stop,
                    key={"state": str(state.resolve())},
                    seconds=seconds,
                    count=count,
                    versions=lambda: learner.versions,
                )
            else:
                found = _offline(target, samples, learner, stop, batch=batch, strict=strict)
        events = learner.events  # the last one tells of the snapshot that closing wrote
        if log is not None:
            write_events(log, events)
        if plot is not None:
            write_plot(plot, history_of(events), title=f"{bundle.resolve().name}, {state.resolve().name}")
        written = {"output": str(output), "state": str(state), "plot": str(plot) if plot else None}
        facts = written | encoder.info(fused=as_json) | found | {"events": events}
    kinds = Counter(str(event["kind"]) for event in events)
    told = ", ".join(f"{number} {kind}" for kind, number in kinds.items()) or "none"
    text = f"{facts['samples']} vectors of {encoder.dim} in space {encoder.space_id} -> {output}; events: {told}"
    target.tell(facts, text, as_json=as_json)
    if stop.signal:
        raise typer.Exit(stop.exit_code)


def _offline(
    target: Target, samples: Source, learner: Learner, stop: Stop, *, batch: int, strict: bool
) -> dict[str, Any]:
    """Embed and learn from what can be read again, from its start; what was counted."""
    from edgessl.runtimes.sinks.offline import embed_source
    from edgessl.runtimes.vectors import nothing_read

    def observe(frames: NDArray[Any]) -> NDArray[np.float32]:
        if stop.signal:  # not in the middle of what is learned
            raise KeyboardInterrupt
        return learner.observe(frames)

    total = len(samples)
    with _sink(target) as sink:
        try:
            with progress("adapt", total) if target.write else nullcontext(quiet) as advance:
                embed_source(
                    samples,
                    observe,
                    sink,
                    batch=batch,
                    strict=strict,
                    advance=advance,
                    versions=lambda: learner.versions,
                )
            if not sink.tally.count:
                raise nothing_read(samples)
            sink.finish()
        except KeyboardInterrupt as error:
            kept = "no vectors are written" if target.write else "so many vectors were written"
            raise stopped(
                f"stopped behind {sink.tally.count} of {total} samples; the state is kept, {kept}", stop
            ) from error
    return counted(sink, samples)


def _sink(target: Target) -> AbstractContextManager[Sink]:
    """In memory: what was learned meanwhile cannot be gone on with from the middle of a source."""
    from edgessl.runtimes.sinks.offline import space_of
    from edgessl.runtimes.sinks.whole import Whole

    if target.write is None:
        return standard_output()
    return closing(Whole(target.output, space_of(target.encoder), target.write))


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
