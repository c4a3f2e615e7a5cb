"""`edgessl embed`: vectors of every sample of a source."""

from __future__ import annotations

from contextlib import nullcontext
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
    stopped,
    writer_of,
)

if TYPE_CHECKING:
    from edgessl.runtimes.encoder import Encoder
    from edgessl.runtimes.sinks.stop import Stop
    from edgessl.sources import Source

EXAMPLE = "edgessl embed robot.edgessl frames/ -o vectors.npz"


def embed(
    bundle: BundlePath,
    source: LiveSamples,
    output: Output,
    engine: EngineName = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    low_power: LowPower = False,
    batch: Annotated[int, typer.Option(help="Samples per run.")] = 32,
    split: Split = "train",
    series: Series = [],  # noqa: B006, typer reads it and nobody changes it
    seconds: Seconds = None,
    count: Count = None,
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
    runs until Ctrl-C, SIGTERM, --seconds or --count, and then OUTPUT is written; an engine that fails or hangs meanwhile
    is opened again, or replaced, and said.
    """
    from edgessl.runtimes.sinks.journal import unfinished

    write = writer_of(output, overwrite=overwrite or unfinished(output))
    live = check_live(source, seconds, count)
    windowing = parsed_series(series)
    from edgessl.runtimes.encoder import open_encoder
    from edgessl.runtimes.engines.choice import sentence
    from edgessl.runtimes.sinks.stop import Stop
    from edgessl.runtimes.vectors import quarantining
    from edgessl.runtimes.watchdog import open_watched
    from edgessl.sources import open_source

    settings = engine_settings(threads, low_power=low_power)
    facts: dict[str, Any] = {"output": str(output)}
    with Stop(at_once=not live) as stop:
        if live:
            with open_watched(bundle, engine=engine, precision=precision, settings=settings, tell=_tell) as watched:
                if chosen := watched.info().get("chosen"):
                    talk(sentence(chosen))
                target = Target(watched, output, write, overwrite)
                found = embed_stream(
                    target, source, quarantining(watched), stop, key={}, seconds=seconds, count=count
                ) | {"health": watched.health()}
                facts |= watched.info(fused=True) if as_json else {}
        else:
            with open_encoder(bundle, engine=engine, precision=precision, settings=settings) as encoder:
                if encoder.chosen:
                    talk(sentence(encoder.chosen))
                samples = open_source(
                    source, split=split, strict=strict, windowing=windowing, spec=encoder.input, labelled=False
                )
                target = Target(encoder, output, write, overwrite)
                found = _offline(target, encoder, samples, stop, batch=batch, strict=strict)
                facts |= encoder.info(fused=True) if as_json else {}
        facts |= {"dim": target.encoder.dim, "space_id": target.encoder.space_id} | found
    text = f"{facts['samples']} vectors of {facts['dim']} in space {facts['space_id']} -> {output}"
    target.tell(facts, text, as_json=as_json)
    if stop.signal:
        raise typer.Exit(stop.exit_code)


def _offline(
    target: Target, encoder: Encoder, samples: Source, stop: Stop, *, batch: int, strict: bool
) -> dict[str, Any]:
    """Embed what can be read again; what was counted."""
    from edgessl.runtimes.sinks.offline import embed_source, encoder_key, source_key
    from edgessl.runtimes.vectors import nothing_read, quarantining

    total = len(samples)
    key = encoder_key(encoder) | source_key(samples, batch=batch, strict=strict)
    with target.sink(key, complete=total) as sink:
        try:
            with progress("embed", total) if target.write else nullcontext(quiet) as advance:
                advance(sink.tally.count)
                embed_source(
                    samples,
                    quarantining(encoder),
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
            raise stopped(f"stopped; {sink.tally.count} of {total} samples {kept}", stop) from error
    return counted(sink, samples)


def _tell(event: dict[str, Any]) -> None:
    """What the watchdog did."""
    talk(f"{event['event']}: {event.get('message') or event.get('reason') or '; '.join(event['reasons'])}")
