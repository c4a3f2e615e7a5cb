"""`edgessl embed`: vectors of every sample of a source."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
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
    Series,
    Split,
    Strict,
    Threads,
    engine_settings,
    parsed_series,
)
from edgessl.cli.output import progress, result, talk, talk_quarantined, talk_skipped
from edgessl.errors import EdgeSSLError, InputError, Interrupted, OutputExistsError
from edgessl.files import refuse_existing

if TYPE_CHECKING:
    from edgessl.runtimes.encoder import Encoder
    from edgessl.runtimes.sinks import Sink, Writer
    from edgessl.runtimes.sinks.stop import Stop
    from edgessl.sources import Source

EXAMPLE = "edgessl embed robot.edgessl frames/ -o vectors.npz"

_OUTPUT = "NAME.npz, NAME.parquet, NAME.jsonl, NAME.index (a folder), or - for JSON lines on standard output."
_PIPE_CLOSED = 141  # what a shell says of a process that SIGPIPE ended


def embed(
    bundle: BundlePath,
    source: LiveSamples,
    output: Annotated[Path, typer.Option("--output", "-o", help=_OUTPUT)],
    engine: EngineName = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    low_power: LowPower = False,
    batch: Annotated[int, typer.Option(help="Samples per run.")] = 32,
    split: Split = "train",
    series: Series = [],  # noqa: B006, typer reads it and nobody changes it
    seconds: Annotated[
        float | None, typer.Option(min=0, help="End a live stream after so long; 0 finishes what was begun.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End a live stream after so many frames.")] = None,
    strict: Strict = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Embed every sample of SOURCE with BUNDLE.

    OUTPUT holds `vectors` (n, dim) float32 in the source's order, `names` relative to the source, `version` (n,) of the
    encoder, `space_id` and `space_revision`; a .parquet or .jsonl file holds the same as rows, with time stamps where
    the source knows them.

    It may be stopped at any instant, by Ctrl-C, kill -9 or a full disk: what is done is kept in OUTPUT.embedding/, the same
    command goes on behind it, and OUTPUT is what it would have been. A live stream (camera:0, or - for standard input)
    runs until Ctrl-C, SIGTERM, --seconds or --count, and then OUTPUT is written.
    """
    from edgessl.runtimes.sinks import STDOUT, is_folder, writer_for
    from edgessl.runtimes.sinks.journal import unfinished
    from edgessl.sources import is_live, open_source

    write: Writer | None = None
    if output != STDOUT:
        file = "" if is_folder(output) else "-o vectors.npz"
        refuse_existing(output, overwrite=overwrite or unfinished(output), file=file)
        write = writer_for(output)
    live = is_live(source)
    if not live and (seconds is not None or count is not None):
        raise InputError(f"--seconds and --count end a live stream, and {source} is none; leave them out")
    windowing = parsed_series(series)
    from edgessl.runtimes.encoder import open_encoder
    from edgessl.runtimes.engines.choice import sentence
    from edgessl.runtimes.sinks.stop import Stop

    settings = engine_settings(threads, low_power=low_power)
    with (
        open_encoder(bundle, engine=engine, precision=precision, settings=settings) as encoder,
        Stop(at_once=not live) as stop,
    ):
        if encoder.chosen:
            talk(sentence(encoder.chosen))
        target = _Target(encoder, output, write, overwrite)
        if live:
            found = _live(target, source, stop, seconds, count)
        else:
            samples = open_source(
                source, split=split, strict=strict, windowing=windowing, spec=encoder.input, labelled=False
            )
            found = _offline(target, samples, stop, batch=batch, strict=strict)
        facts: dict[str, Any] = {"output": str(output), "dim": encoder.dim, "space_id": encoder.space_id}
        facts |= (encoder.info() if as_json else {}) | found  # info may open the graph once more
    talk_skipped([(skipped["name"], skipped["reason"]) for skipped in facts["skipped"]])
    talk_quarantined(facts["quarantined"])
    text = f"{facts['samples']} vectors of {facts['dim']} in space {facts['space_id']} -> {output}"
    if live:
        text += "".join(f", {name} {number}" for name, number in facts["stream"].items())
    if write is None:
        talk(json.dumps(facts, indent=2) if as_json else text)
    else:
        result(facts, text, as_json=as_json)
    if stop.signal:
        raise typer.Exit(stop.exit_code)


@dataclass(frozen=True)
class _Target:
    """What embeds, and where to."""

    encoder: Encoder
    output: Path
    write: Writer | None
    overwrite: bool

    @contextmanager
    def sink(self, key: dict[str, Any], *, complete: int | None = None) -> Iterator[Sink]:
        """A journal of the output, or standard output; `complete` is what `done` is when nothing is left to be embedded."""
        from edgessl.runtimes.sinks.journal import Journal
        from edgessl.runtimes.sinks.jsonl import JsonLines
        from edgessl.runtimes.sinks.offline import encoder_key, space_of

        if self.write is None:
            with _pipe():
                yield JsonLines(sys.stdout.buffer)
            return
        key = encoder_key(self.encoder) | key
        with Journal(self.output, key, space_of(self.encoder), self.write, overwrite=self.overwrite) as journal:
            if self.output.exists() and not self.overwrite and journal.tally.done != complete:
                raise OutputExistsError(self.output)
            if journal.count:
                torn = ", without one that was cut off while it was written" if journal.lost_bytes else ""
                talk(f"going on behind {journal.count} samples that are done{torn}")
            yield journal


def _offline(target: _Target, samples: Source, stop: Stop, *, batch: int, strict: bool) -> dict[str, Any]:
    """Embed what can be read again; what was counted."""
    from edgessl.runtimes.sinks.offline import embed_source, source_key
    from edgessl.runtimes.vectors import nothing_read, quarantining

    total = len(samples)
    with target.sink(source_key(samples, batch=batch, strict=strict), complete=total) as sink:
        try:
            with progress("embed", total) if target.write else nullcontext(_quiet) as advance:
                advance(sink.tally.count)
                embed_source(
                    samples,
                    quarantining(target.encoder),
                    sink,
                    batch=batch,
                    start=sink.tally.done,
                    strict=strict,
                    advance=advance,
                )
            if not sink.tally.count:
                raise nothing_read(samples)
            sink.finish()
        except KeyboardInterrupt as error:
            kept = "are done and kept; type the same command to go on" if target.write else "were written"
            raise _stopped(f"stopped; {sink.tally.count} of {total} samples {kept}", stop) from error
    return {**sink.tally.counts(), "skipped": _all_skipped(sink, samples)}


def _live(target: _Target, source: str, stop: Stop, seconds: float | None, count: int | None) -> dict[str, Any]:
    """Embed a stream until it ends or is ended; what was counted."""
    from edgessl.runtimes.sinks.live import embed_live
    from edgessl.runtimes.vectors import quarantining
    from edgessl.sources import open_live

    stream: dict[str, Any] = {}
    with target.sink({"source": source}) as sink:
        try:
            if seconds != 0:  # without the camera, what a killed run left can still be finished
                with open_live(source, spec=target.encoder.input, tell=_tell) as live:
                    stream["oldest_ms"] = embed_live(
                        live,
                        quarantining(target.encoder),
                        sink,
                        stopped=lambda: bool(stop.signal),
                        seconds=seconds,
                        count=count,
                        session=sink.tally.done + 1 if sink.tally.count else 0,
                    )
                stream = live.counts() | stream
            if target.write and not sink.tally.count:
                raise InputError(f"{source} gave no frame, so there is nothing to write")
            sink.finish()
        except (EdgeSSLError, KeyboardInterrupt) as error:
            if target.write and sink.tally.count:
                talk(f"{sink.tally.count} samples are kept; type the same command to go on, with --seconds 0 to finish")
            if isinstance(error, KeyboardInterrupt):
                raise _stopped("stopped", stop) from error
            raise
    return {**sink.tally.counts(), "stream": stream}


def _all_skipped(sink: Sink, samples: Source) -> list[dict[str, str]]:
    """With what was skipped behind the last sample that could be read."""
    named = sink.tally.skipped | {skipped.name: skipped.reason for skipped in samples.skipped}
    return [{"name": name, "reason": reason} for name, reason in named.items()]


@contextmanager
def _pipe() -> Iterator[None]:
    """When nobody reads standard output any more, leave without a word."""
    try:
        yield
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer goes nowhere
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(_PIPE_CLOSED) from error
        raise


def _stopped(message: str, stop: Stop) -> Interrupted:
    error = Interrupted(message)
    error.exit_code = stop.exit_code or error.exit_code
    return error


def _tell(event: dict[str, Any]) -> None:
    rest = ", ".join(f"{name} {value}" for name, value in event.items() if name not in ("event", "source"))
    talk(f"{event['source']} {event['event']}: {rest}")


def _quiet(done: int) -> None:
    """Lines on standard output are progress enough."""
