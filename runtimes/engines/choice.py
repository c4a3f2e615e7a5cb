"""Which engine `auto` means, and why it is not another."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec

from edgessl.errors import MissingExtraError, UnknownNameError
from edgessl.runtimes.engines import ENGINES, FAKE


def engine_name(name: str) -> str:
    """`name`, or for `auto` the first of `ENGINES` whose package is installed.

    Raises:
        UnknownNameError: There is no engine of that name.
    """
    if name == "auto":
        return next(filter(_installed, automatic()), automatic()[0])
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ("auto", *ENGINES))
    return name


def automatic() -> tuple[str, ...]:
    """Engines that `auto` may take, in the order in which it tries them."""
    return tuple(name for name in ENGINES if name != FAKE)


def untaken(engine: str, taken: str) -> str:
    """Why `auto` did not try `engine` when it had `taken`, and what to type for it."""
    package, extra = ENGINES[engine][2:]
    if _installed(engine):
        return f"not tried, since {taken} runs; to take it, type --engine {engine}"
    return str(MissingExtraError(package, extra)) if extra else f"{package!r} is not installed; type: edgessl doctor"


def sentence(chosen: Mapping[str, str]) -> str:
    """One line for people of `Encoder.chosen`."""
    return f"--engine auto: {'; '.join(f'{name}: {why}' for name, why in chosen.items())}"


def _installed(engine: str) -> bool:
    package = ENGINES[engine][2]
    return sys.modules.get(package) is not None or find_spec(package) is not None
