"""How fast, how large and how thirsty the encoders of a bundle are on this machine, side by side.

Every engine in every precision is opened at once and they take turns, so that a noisy second falls on all of them. The golden
samples are the input. What cannot be measured here is said, and never left out.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edgessl
from edgessl.errors import EdgeSSLError, InputError
from edgessl.runtimes.clocks import UNAVAILABLE, machine_state
from edgessl.runtimes.coldstart import cold_start
from edgessl.runtimes.contenders import Contender
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.engines import EngineSettings
from edgessl.runtimes.power import EnergyMeter, Rails
from edgessl.runtimes.sensors import fields, text
from edgessl.runtimes.timing import Spread, compare, every_call, interleaved, paced
from edgessl.runtimes.verify import golden_of

_CALLS = (2, 5)  # of one contender in its turn; the first of them fetches what the others pushed out of the caches
_ENOUGH_ROUNDS = 12  # slow encoders get shorter turns rather than fewer
_ROUNDS = 100_000  # the seconds end it
_LAID_OUT = 16  # batches, at most


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """How to measure.

    Attributes:
        seconds: For each figure of each contender.
        rate_hz: Frames a second of the camera that is played.
        batches: Samples per call, for the throughput.
        settings: What the engines may take of the processor.
        fresh: Start processes of their own, for cold start and memory.
    """

    seconds: float = 2.0
    rate_hz: float = 30.0
    batches: tuple[int, ...] = (1, 8, 32)
    settings: EngineSettings = field(default_factory=EngineSettings)
    fresh: bool = True

    def __post_init__(self) -> None:
        for name in ("seconds", "rate_hz"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be above 0, not {getattr(self, name)}")
        if not self.batches or min(self.batches) < 1:
            raise InputError(f"batches must be 1 or more, not {self.batches}")


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """What was found.

    Attributes:
        machine: What it was measured on, with power mode, clocks and temperature `before` and `after`.
        config: How.
        power: Which meter there is, what was drawn at rest, or why there is none.
        rows: One per contender; `ok`, and `reason` where it is false.
    """

    machine: dict[str, Any]
    config: dict[str, Any]
    power: dict[str, Any]
    rows: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {**asdict(self), "rows": list(self.rows)}


@dataclass(frozen=True, kw_only=True)
class _Open:
    """A contender that runs, with the samples it is given."""

    contender: Contender
    encoder: Encoder
    samples: NDArray[Any]

    def runs(self, batch: int) -> Callable[[], object]:
        """Embeds the next `batch` samples, the golden ones in a circle; they are laid out before."""
        count = len(self.samples)
        rows = [np.arange(start, start + batch) % count for start in range(0, min(count, _LAID_OUT * batch), batch)]
        turns = cycle([np.ascontiguousarray(self.samples[each]) for each in rows])
        return lambda: self.encoder.embed(next(turns))


def bench(
    contenders: Sequence[Contender],
    config: BenchConfig | None = None,
    *,
    rails: Rails | None = None,
    root: Path = Path("/"),
    say: Callable[[str], None] = lambda message: None,
) -> BenchReport:
    """Measure contenders side by side. Ratios are to the first of them that runs.

    Args:
        contenders: What to measure; `contenders_of` gives those of a bundle.
        config: How.
        rails: Power meters; this machine's by default.
        root: Under which `/sys`, `/proc` and `/etc` are.
        say: Told what is going on.

    Raises:
        InputError: There is nothing to measure, or two contenders have the same name.
        BundleError: A bundle has no golden samples.
    """
    config = config or BenchConfig()
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) < len(names):
        raise InputError(f"contenders need names of their own, and there must be one; these are: {', '.join(names)}")
    rails = rails if rails is not None else Rails(root / "sys")
    before, refused, running = machine_state(root), {}, []
    try:
        for contender in contenders:
            encoder, reason = contender.open(config.settings)
            if encoder is None:
                refused[contender.name] = reason
                continue
            running.append(_Open(contender=contender, encoder=encoder, samples=golden_of(contender.bundle).samples))
        idle_w = _idle_w(rails, config.seconds, say) if running else None
        measured = _measured(running, config, rails, idle_w, say)
    finally:
        for each in running:
            each.encoder.close()
    rows = []
    for contender in contenders:
        row = {
            "name": contender.name,
            "bundle": str(contender.bundle.path),
            "engine": contender.engine,
            "precision": contender.precision,
            "ok": contender.name in measured,
            "reason": refused.get(contender.name, ""),
        }
        rows.append(row | measured.get(contender.name, {}))
    return BenchReport(
        machine=_machine(root) | {"before": before, "after": machine_state(root)},
        config={**asdict(config), "batches": list(config.batches)},
        power={"source": rails.source or UNAVAILABLE, "missing": rails.missing, "idle_w": _rounded(idle_w, 3)},
        rows=tuple(rows),
    )


def _measured(
    running: Sequence[_Open], config: BenchConfig, rails: Rails, idle_w: float | None, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    if not running:
        return {}
    found: dict[str, dict[str, Any]] = {each.contender.name: {"info": _info(each)} for each in running}
    say(f"latency of {len(running)} encoders, flat out")
    runs = {each.contender.name: each.runs(1) for each in running}
    once_s = sum(times[0] for times in interleaved(runs, rounds=1).values())
    bursts = every_call(
        runs,
        rounds=_ROUNDS,
        calls=calls_per_turn(once_s, config.seconds * len(running)),
        budget_s=config.seconds * len(running),
    )
    ratios = compare({name: [min(burst) for burst in own] for name, own in bursts.items()}, baseline=next(iter(bursts)))
    for name, own in bursts.items():
        settled = [seconds for burst in own for seconds in burst[1:]]
        found[name] |= {"flat_out": Spread.of(settled).to_json(), "ratio": ratios[name].to_json()}
    for each in running:
        name = each.contender.name
        say(f"{name}: {config.rate_hz:g} frames a second, batches of {', '.join(map(str, config.batches))}")
        camera = paced(each.runs(1), rate_hz=config.rate_hz, seconds=config.seconds)
        found[name]["paced"] = Spread.of(camera.seconds).to_json() | {
            "rate_hz": config.rate_hz,
            "late": camera.late,
            "dropped": camera.dropped,
        }
        found[name]["per_second"] = {str(batch): _per_second(each, batch, config.seconds) for batch in config.batches}
        found[name]["energy"] = _energy(each, config.seconds, rails, idle_w)
        if config.fresh:
            say(f"{name}: a fresh process")
            found[name]["cold_start"] = _cold(each, config)
    return found


def calls_per_turn(once_s: float, budget_s: float) -> int:
    """Calls of each contender in a round, so that enough rounds fit, where one call of each takes `once_s` together."""
    least, most = _CALLS
    return min(max(int(budget_s / (_ENOUGH_ROUNDS * max(once_s, 1e-9))), least), most)


def _info(each: _Open) -> dict[str, Any]:
    info = each.encoder.info(fused=True)
    return {key: value for key, value in info.items() if key not in ("bundle", "space_id", "dim")}


def _per_second(each: _Open, batch: int, seconds: float) -> float:
    run, calls, start = each.runs(batch), 0, time.perf_counter()
    while (took := time.perf_counter() - start) < seconds or not calls:
        run()
        calls += 1
    return round(calls * batch / max(took, 1e-9), 2)


def _idle_w(rails: Rails, seconds: float, say: Callable[[str], None]) -> float | None:
    if not rails.source:
        return None
    say("power at rest")
    with EnergyMeter(rails) as meter:
        time.sleep(seconds)
    return meter.mean_w


def _energy(each: _Open, seconds: float, rails: Rails, idle_w: float | None) -> dict[str, Any] | str:
    """Millijoules per embedding above rest, one at a time; or why that cannot be said."""
    if not rails.source:
        return f"{UNAVAILABLE}: {rails.missing}"
    run, calls = each.runs(1), 0
    with EnergyMeter(rails) as meter:
        start = time.perf_counter()
        while time.perf_counter() - start < seconds or not calls:
            run()
            calls += 1
        took = time.perf_counter() - start
    if meter.mean_w is None or idle_w is None:
        return f"{UNAVAILABLE}: the {rails.source} gave fewer than two readings; type --seconds {seconds * 4:g}"
    above = meter.mean_w - idle_w
    return {
        "mj_per_embedding": round(above * took / calls * 1e3, 4),
        "mean_w": round(meter.mean_w, 3),
        "idle_w": round(idle_w, 3),
        "readings": meter.readings,
        "source": rails.source,
    }


def _cold(each: _Open, config: BenchConfig) -> dict[str, float] | str:
    try:
        return cold_start(
            each.contender.bundle.path,
            engine=each.contender.engine,
            precision=each.contender.precision,
            settings=asdict(config.settings),
        ).to_json()
    except EdgeSSLError as error:
        return f"{UNAVAILABLE}: {error}"


def _machine(root: Path) -> dict[str, Any]:
    said = fields(root / "proc" / "cpuinfo")
    return {
        "board": text(root / "proc" / "device-tree" / "model"),
        "cpu": said.get("model name") or platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "edgessl": edgessl.__version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
