"""Where `edgessl embed` and `edgessl adapt` put vectors, and what they do with a stream that has no end."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgessl.cli.output import result, talk, talk_quarantined, talk_skipped
from edgessl.errors import EdgeSSLError, InputError, Interrupted, OutputExistsError
from edgessl.files import refuse_existing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgessl.runtimes.sinks import Sink, Writer
    from edgessl.runtimes.sinks.stop import Stop
    from edgessl.runtimes.vectors import Embed, Embedder
    from edgessl.sources import Source

_OUTPUT = "NAME.npz, NAME.parquet, NAME.jsonl, NAME.index (a folder), or - for JSON lines on standard output."
Output = Annotated[Path, typer.Option("--output", "-o", help=_OUTPUT)]
Seconds = Annotated[
    float | None, typer.Option(min=0, help="End a live stream after so long; 0 finishes what was begun.")
]
Count = Annotated[int | None, typer.Option(min=1, help="End a live stream after so many frames.")]

_PIPE_CLOSED = 141  # what a shell says of a process that SIGPIPE ended


@dataclass(frozen=True)
class Target:
    """What embeds, and where to; without `write` that is standard output."""

    encoder: Embedder
    output: Path
    write: Writer | None
    overwrite: bool

    @contextmanager
    def sink(self, key: Mapping[str, Any], *, complete: int | None = None) -> Iterator[Sink]:
        """A journal of the output, or standard output.

        Args:
            key: What makes the vectors; see `edgessl.runtimes.sinks.offline`.
            complete: What `done` is when nothing is left to be embedded.
        """
        from edgessl.runtimes.sinks.journal import Journal
        from edgessl.runtimes.sinks.offline import space_of

        if self.write is None:
            with standard_output() as sink:
                yield sink
            return
        with Journal(self.output, key, space_of(self.encoder), self.write, overwrite=self.overwrite) as journal:
            if self.output.exists() and not self.overwrite and journal.tally.done != complete:
                raise OutputExistsError(self.output)
            if journal.count:
                torn = ", without one that was cut off while it was written" if journal.lost_bytes else ""
                talk(f"going on behind {journal.count} samples that are done{torn}")
            yield journal

    def tell(self, facts: Mapping[str, Any], text: str, *, as_json: bool) -> None:
        """The result, and what was left out; beside the vectors where those are on standard output."""
        talk_skipped([(skipped["name"], skipped["reason"]) for skipped in facts["skipped"]])
        talk_quarantined(facts["quarantined"])
        text += "".join(f", {name} {number}" for name, number in facts.get("stream", {}).items())
        if self.write is None:
            talk(json.dumps(facts, indent=2) if as_json else text)
        else:
            result(facts, text, as_json=as_json)


def writer_of(output: Path, *, overwrite: bool) -> Writer | None:
    """What writes this output, None for standard output.

    Raises:
        InputError: It is there already and may not be replaced, or there is no such form.
    """
    from edgessl.runtimes.sinks import STDOUT, is_folder, writer_for

    if output == STDOUT:
        return None
    refuse_existing(output, overwrite=overwrite, file="" if is_folder(output) else "-o vectors.npz")
    return writer_for(output)


def check_live(source: str, seconds: float | None, count: int | None) -> bool:
    """Whether the source is a live stream.

    Raises:
        InputError: It is none, and `--seconds` or `--count` would end one.
    """
    from edgessl.sources import is_live

    live = is_live(source)
    if not live and (seconds is not None or count is not None):
        raise InputError(f"--seconds and --count end a live stream, and {source} is none; leave them out")
    return live


def embed_stream(
    target: Target,
    source: str,
    embed: Embed,
    stop: Stop,
    *,
    key: Mapping[str, Any],
    seconds: float | None,
    count: int | None,
    versions: Callable[[], NDArray[np.int64]] | None = None,
) -> dict[str, Any]:
    """Embed a stream until it ends or is ended; what was counted.

    Args:
        target: Takes the vectors.
        source: A live one.
        embed: `(1, *sample)` -> `(1, dim)`.
        stop: Asked between frames.
        key: Of a journal, beside the bundle and the source.
        seconds, count, versions: As in `edgessl.runtimes.sinks.live.embed_live`.
    """
    from edgessl.runtimes.sinks.live import embed_live
    from edgessl.runtimes.sinks.offline import bundle_key
    from edgessl.sources import open_live

    stream: dict[str, Any] = {}
    with target.sink({**bundle_key(target.encoder), "source": source, **key}) as sink:
        try:
            if seconds != 0:  # without the camera, what a killed run left can still be finished
                with open_live(source, spec=target.encoder.input, tell=_tell) as live:
                    stream["oldest_ms"] = embed_live(
                        live,
                        embed,
                        sink,
                        stopped=lambda: bool(stop.signal),
                        seconds=seconds,
                        count=count,
                        session=sink.tally.done + 1 if sink.tally.count else 0,
                        versions=versions,
                    )
                stream = live.counts() | stream
            if target.write and not sink.tally.count:
                raise InputError(f"{source} gave no frame, so there is nothing to write")
            sink.finish()
        except (EdgeSSLError, KeyboardInterrupt) as error:
            if target.write and sink.tally.count:
                talk(f"{sink.tally.count} samples are kept; type the same command to go on, with --seconds 0 to finish")
            if isinstance(error, KeyboardInterrupt):
                raise stopped("stopped", stop) from error
            raise
    return {**sink.tally.counts(), "stream": stream}


@contextmanager
def standard_output() -> Iterator[Sink]:
    """JSON lines; when nobody reads them any more, leave without a word."""
    from edgessl.runtimes.sinks.jsonl import JsonLines

    try:
        yield JsonLines(sys.stdout.buffer)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer goes nowhere
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(_PIPE_CLOSED) from error
        raise


def stopped(message: str, stop: Stop) -> Interrupted:
    """The error for what a signal ended, with the exit code of that signal."""
    error = Interrupted(message)
    error.exit_code = stop.exit_code or error.exit_code
    return error


def counted(sink: Sink, samples: Source) -> dict[str, Any]:
    """What a sink has of a source, with what was skipped behind the last sample that could be read."""
    named = sink.tally.skipped | {skipped.name: skipped.reason for skipped in samples.skipped}
    return sink.tally.counts() | {"skipped": [{"name": name, "reason": reason} for name, reason in named.items()]}


def quiet(done: int) -> None:
    """Lines on standard output are progress enough."""


def _tell(event: dict[str, Any]) -> None:
    rest = ", ".join(f"{name} {value}" for name, value in event.items() if name not in ("event", "source"))
    talk(f"{event['source']} {event['event']}: {rest}")
