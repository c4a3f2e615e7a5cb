"""`edgessl bench`: how fast, how large and how thirsty a bundle is on this machine, in every engine and precision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgessl.cli.options import Json, Overwrite
from edgessl.cli.output import result, table, talk
from edgessl.errors import EngineError, InputError

if TYPE_CHECKING:
    from edgessl.runtimes.bench import BenchReport
    from edgessl.runtimes.contenders import Contender

EXAMPLE = "edgessl bench robot.edgessl --rate 30 -o bench.svg"

_NAMED = "ENGINE:PRECISION of BUNDLE, another bundle, or OTHER.edgessl:ENGINE:PRECISION"


def bench(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="[BUNDLE]", help="Folder NAME.edgessl; not needed to compare two of them.")
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option("--compare", metavar="A B", help=f"Measure these two, and B's time over A's. Each is {_NAMED}."),
    ] = None,
    rate: Annotated[float, typer.Option(help="Frames a second of the camera that is played.")] = 30.0,
    seconds: Annotated[float, typer.Option(help="For each figure of each encoder.")] = 2.0,
    batches: Annotated[str, typer.Option(metavar="N,N,...", help="Samples per call, for the throughput.")] = "1,8,32",
    threads: Annotated[int, typer.Option(help="Threads per run; 0 lets the engine choose.")] = 0,
    low_power: Annotated[bool, typer.Option("--low-power", help="The engines' settings for batteries.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh/--no-fresh", help="Measure cold start and memory in new processes.")
    ] = True,
    output: Annotated[
        list[Path],
        typer.Option("--output", "-o", help="Write the report, a .json file, or a picture, .svg; may be repeated."),
    ] = [],  # noqa: B006, typer reads it and nobody changes it
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure BUNDLE on this machine, engine by engine.

    Latency flat out and at the frame rate (from when the frame is there; late: started over 1 ms after that; dropped: a
    newer one was there first), samples a second, cold start, peak memory, and energy above rest where the board has a
    meter. Ratios are to the first that runs, per round, with their quartiles. What cannot run is told with the reason.
    """
    from edgessl.runtimes.bench import BenchConfig
    from edgessl.runtimes.bench import bench as measure
    from edgessl.runtimes.engines import LOW_POWER, EngineSettings

    if low_power and threads:
        raise InputError(f"--low-power and --threads {threads} say the same twice; leave one out")
    config = BenchConfig(
        seconds=seconds,
        rate_hz=rate,
        batches=_batches(batches),
        settings=LOW_POWER if low_power else EngineSettings(threads=threads),
        fresh=fresh,
    )
    for file in output:
        _refuse(file, overwrite=overwrite)
    contenders = _contenders(bundle, compare)
    report = measure(contenders, config, say=talk)
    for file in output:
        _write(file, report)
    result(report.to_json(), f"{table(shown(report))}\n\n{_told(report)}", as_json=as_json)
    refused = [row["name"] for row in report.rows if not row["ok"]]
    if len(refused) == len(report.rows):
        raise EngineError("nothing of it can run here; type: edgessl doctor")
    if compare and refused:
        raise EngineError(
            f"{refused[0]} cannot run here, so there is nothing to compare; type: edgessl doctor {bundle or ''}"
        )


def _contenders(bundle: Path | None, compare: tuple[str, str] | None) -> list[Contender]:
    from edgessl.bundle import open_bundle
    from edgessl.runtimes.contenders import contender_named, contenders_of

    if compare:
        return [contender_named(name, bundle) for name in compare]
    if bundle is None:
        raise InputError("no bundle; type: edgessl bench robot.edgessl, or edgessl bench --compare A.edgessl B.edgessl")
    return contenders_of(open_bundle(bundle))


def _told(report: BenchReport) -> str:
    """What holds for all rows."""
    machine, before, after = report.machine, report.machine["before"], report.machine["after"]
    refused: dict[str, list[str]] = {}
    for row in report.rows:
        if not row["ok"]:
            refused.setdefault(row["reason"], []).append(row["name"])
    lines = [f"{', '.join(names)} cannot run here: {reason}" for reason, names in refused.items()]
    for row in report.rows:
        lines += [
            f"{row['name']}: {key} {row[key]}" for key in ("cold_start", "energy") if _unsaid(row.get(key), report)
        ]
    lines += [f"{machine['board'] or machine['cpu']}, {machine['system']}, Python {machine['python']}"]
    lines.append(f"power mode {before['power_mode']}, governor {before['governor']}, " + _clocks(before, after))
    lines += [f"held back: {what}" for what in after["held_back"]]
    power = report.power
    lines.append(
        f"energy by {power['source']}, {power['idle_w']} W at rest subtracted"
        if not power["missing"]
        else f"energy unavailable: {power['missing']}"
    )
    two = [row for row in report.rows if row["ok"]]
    if len(report.rows) == len(two) == 2:
        ratio = two[1]["ratio"]
        lines.append(
            f"{two[1]['name']} takes {ratio['ratio']:.3f} of the time of {two[0]['name']} (half of {ratio['rounds']} rounds "
            f"between {ratio['low']:.3f} and {ratio['high']:.3f})"
        )
    return "\n".join(lines)


def _unsaid(figure: Any, report: BenchReport) -> bool:
    """It is a reason and no figure, and not the one that holds for all rows."""
    return isinstance(figure, str) and not (report.power["missing"] and figure.endswith(report.power["missing"]))


def _clocks(before: dict[str, Any], after: dict[str, Any]) -> str:
    said = []
    for what, key, unit in (
        ("processor", "cpu_mhz", "MHz"),
        ("GPU", "gpu_mhz", "MHz"),
        ("temperature", "temperature_c", "C"),
    ):
        if isinstance(before[key], (int, float)):
            said.append(f"{what} {before[key]} {unit} before and {after[key]} {unit} after")
        else:
            said.append(f"{what} {before[key]}")
    return ", ".join(said)


def shown(report: BenchReport) -> list[Mapping[str, Any]]:
    """Rows of a table for people; empty where something was not measured."""
    return [_line(row, report) for row in report.rows]


def _line(row: Mapping[str, Any], report: BenchReport) -> dict[str, Any]:
    rate = report.config["rate_hz"]
    line: dict[str, Any] = {"": row["name"]}
    flat, camera, cold = row.get("flat_out", {}), row.get("paced", {}), row.get("cold_start", {})
    line |= {f"{key} ms": flat.get(f"{key}_ms") for key in ("p50", "p95", "p99")}
    ratio = row.get("ratio")
    line["ratio (quartiles)"] = _ratio(ratio) if ratio else None
    paced = " ".join(f"{camera[key]:.4g}" for key in ("p50_ms", "p95_ms", "p99_ms")) if camera else None
    line |= {f"the same at {rate:g} Hz": paced, "late": camera.get("late"), "dropped": camera.get("dropped")}
    line |= {f"/s by {batch}": row.get("per_second", {}).get(str(batch)) for batch in report.config["batches"]}
    cold = cold if isinstance(cold, dict) else {}
    line |= {"cold ms": cold.get("process_ms"), "peak MiB": cold.get("peak_mib")}
    energy = row.get("energy")
    line["mJ each"] = energy["mj_per_embedding"] if isinstance(energy, dict) else None
    return line


def _ratio(ratio: Mapping[str, Any]) -> str:
    spread = f"{ratio['low']:.2f}-{ratio['high']:.2f}" if ratio["rounds"] > 3 else f"{ratio['rounds']} rounds only"
    return f"{ratio['ratio']:.2f} ({spread})"


def _batches(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{text!r} is no list of batches; type --batches 1,8,32") from error


def _refuse(output: Path, *, overwrite: bool) -> None:
    from edgessl.files import refuse_existing
    from edgessl.runtimes.benchdrawing import refuse_drawing

    if output.suffix == ".json":
        refuse_existing(output, overwrite=overwrite, file="-o bench.json")
    elif output.suffix == ".svg":
        refuse_drawing(output, overwrite=overwrite)
    else:
        raise InputError(f"{output} is neither a report nor a picture; type -o bench.json or -o bench.svg")


def _write(output: Path, report: BenchReport) -> None:
    from edgessl.files import write_atomic
    from edgessl.runtimes.benchdrawing import write_drawing

    if output.suffix == ".svg":
        write_drawing(output, report)
    else:
        write_atomic(output, (json.dumps(report.to_json(), indent=2) + "\n").encode())
