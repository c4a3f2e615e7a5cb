"""From parameters to a service: the engine, adaptation beside it, the board's sensors, and who is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgessl.errors import InputError, MissingExtraError
from edgessl.runtimes.adapt.budget import Budget
from edgessl.runtimes.adapt.config import choose_level
from edgessl.runtimes.encoder import Encoder, open_encoder
from edgessl.runtimes.engines.base import LOW_POWER, EngineSettings
from edgessl.runtimes.pressure import Pressure
from edgessl.runtimes.robot.adapting import Adapting
from edgessl.runtimes.robot.learning import Learning
from edgessl.runtimes.robot.parameters import Parameters
from edgessl.runtimes.robot.seams import Observer
from edgessl.runtimes.robot.service import Service
from edgessl.runtimes.sensors import hottest_c
from edgessl.runtimes.watchdog import open_watched

_LOG = logging.getLogger("edgessl.node")


def open_service(parameters: Parameters, *, wall: Callable[[], float] = time.time) -> Service:
    """Open what the parameters ask for.

    Args:
        parameters: What was asked for.
        wall: Seconds since 1970 of the clock that stamps the frames.

    Raises:
        InputError: A parameter is wrong, the bundle takes no frames, or it cannot adapt as far as was asked for.
        MissingExtraError: The package of an observer is not installed.
        BundleError: The bundle is missing or damaged.
        EngineError: The engine cannot open it.
    """
    with ExitStack() as undo:
        encoder = undo.enter_context(
            open_watched(
                parameters.bundle,
                engine=parameters.engine,
                precision=parameters.precision,
                settings=_settings(parameters),
                tell=_log,
            )
        )
        if encoder.input.kind != "image":
            raise InputError(f"a node takes frames of a camera; {parameters.bundle} takes {encoder.input.kind}")
        # The first run is slow: no camera should wait for it.
        encoder.embed(np.zeros((1, *encoder.input.shape), np.uint8))
        observers: list[Observer] = []
        for observer in _observers(parameters, encoder.dim):
            undo.callback(observer.close)
            observers.append(observer)
        learning = None
        if parameters.learns and parameters.state is not None:
            # What can never work is an error before the first frame.
            level = choose_level(parameters.level, cast(Encoder, encoder))
            learning = Learning(_live(parameters, parameters.state), level=level)
            undo.callback(learning.close)
        service = Service(
            encoder,
            learning,
            pressure=Pressure(),
            temperature=partial(hottest_c, Path("/sys/class/thermal")),
            rate=parameters.rate,
            max_age=parameters.max_age,
            observers=observers,
            wall=wall,
        )
        undo.pop_all()
    return service


def part(name: str, *, package: str) -> Any:
    """The module of this package that stands on an optional package; the extra has the module's name.

    Raises:
        MissingExtraError: The package is not installed.
    """
    try:
        return import_module(f"edgessl.runtimes.robot.{name}")
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingExtraError(package, name) from error


def _settings(parameters: Parameters) -> EngineSettings:
    return LOW_POWER if parameters.low_power else EngineSettings(threads=parameters.threads)


def _log(event: dict[str, Any]) -> None:
    _LOG.error("engine", extra={"facts": event})


def _live(parameters: Parameters, state: Path) -> Callable[[Budget], Adapting]:
    def opened(budget: Budget) -> Adapting:
        # Its sessions are its own: the watchdog closes and replaces the other ones as it must.
        encoder = open_encoder(
            parameters.bundle,
            engine=parameters.engine,
            precision=parameters.precision,
            settings=_settings(parameters),
        )
        try:
            return Adapting(encoder, encoder.adapting(state, level=parameters.level, budget=budget))
        except BaseException:
            encoder.close()
            raise

    return opened


def _observers(parameters: Parameters, dim: int) -> Iterator[Observer]:
    """Metrics first: an address that is taken is found out before a recording is begun."""
    if parameters.metrics is not None:
        host, port = parameters.metrics
        metrics = part("metrics", package="prometheus_client").Metrics(host, port)
        _LOG.info("metrics", extra={"facts": {"url": f"http://{host}:{metrics.port}/metrics"}})
        yield metrics
    if parameters.rerun is not None:
        yield part("rerun", package="rerun").Recording(parameters.rerun, dim=dim, every=parameters.rerun_every)
