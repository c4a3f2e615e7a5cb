"""What an engine opens for a graph of a bundle: the graph itself, or the plan that was built from it on this device."""

from __future__ import annotations

from pathlib import Path

from edgessl.bundle import Bundle
from edgessl.errors import EngineError, InputError

WITH_PLANS = "tensorrt"  # what knows of its plans is imported where there are some: it looks for CUDA
BESIDE_PLANS = "onnxruntime"  # runs what has no plan: the tail, whose weights change, and the training step


def graph_for(bundle: Bundle, role: str, precision: str, engine: str) -> Path:
    """The file to open for `encoder` or `trunk`.

    Raises:
        InputError: The bundle has no such graph.
        EngineError: There is no plan that still counts; says what to type.
    """
    if takes_plans(engine):
        from edgessl.runtimes.plans import plan_for

        return plan_for(bundle, role, precision)
    try:
        return bundle.graph(role, precision, engine)
    except InputError as error:
        have = bundle.precisions(role, engine)
        raise InputError(f"{error}. Type --precision {have[0] if have else 'auto'}, or export it again") from error


def precisions_for(bundle: Bundle, role: str, engine: str) -> tuple[str, ...]:
    """Precisions that the engine can open now, the one that `auto` takes first.

    Raises:
        EngineError: It cannot be used, or there is no plan of the encoder; says what to type.
    """
    if not takes_plans(engine):
        return bundle.precisions(role, engine)
    from edgessl.runtimes.plans import precisions_built

    built = precisions_built(bundle, role)
    if not built and role == "encoder":
        raise EngineError(f"there is no plan of {bundle.path} for this device; type: edgessl build {bundle.path}")
    return built


def trunk_beside(bundle: Bundle, precision: str, engine: str) -> str:
    """Precision of the trunk to open where the encoder runs in `precision`: its own, or what `edgessl build` settled on."""
    if not takes_plans(engine):
        return precision
    from edgessl.runtimes.plans import precisions_built

    built = precisions_built(bundle, "trunk")
    return precision if precision in built or not built else built[0]


def takes_plans(engine: str) -> bool:
    """The engine opens what was built on the device, and not the bundle's graphs."""
    return engine == WITH_PLANS


def engine_of_tail(engine: str) -> str:
    """What runs the tail and the training step where `engine` runs the trunk."""
    return BESIDE_PLANS if takes_plans(engine) else engine
