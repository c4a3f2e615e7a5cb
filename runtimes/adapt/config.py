"""Everything that a learner can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgessl.errors import InputError, UnknownNameError
from edgessl.runtimes.adapt.dependence import DependenceConfig
from edgessl.runtimes.adapt.drift import DriftConfig
from edgessl.runtimes.adapt.equalize import EqualizeConfig
from edgessl.runtimes.adapt.guard import GuardConfig
from edgessl.runtimes.adapt.latest import LatestConfig
from edgessl.runtimes.adapt.memory import MemoryConfig
from edgessl.runtimes.adapt.novelty import NoveltyConfig
from edgessl.runtimes.adapt.ports import PortsConfig
from edgessl.runtimes.adapt.recenter import RecenterConfig
from edgessl.runtimes.adapt.tail import TailConfig
from edgessl.runtimes.adapt.views import ViewsConfig
from edgessl.runtimes.encoder import Encoder

LEVELS = ("recenter", "ports", "tail")


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """Everything that can be set, part by part. Values are ours.

    Attributes:
        observe_every: Where nothing new is expected, one frame in so many is observed; the others are only embedded.
        attend: Frames that are all observed when something has changed.
        snapshot_every: Votes between two snapshots.
        watch_every: Frames between two events that say how things stand.
        confirm_ports, confirm_tail: Blocks of votes that must have confirmed a shift before these levels learn from it.
        young: Until so many have, frames that taught something are embedded again before their vectors are given away: a
            block says much then. It costs a second run of those frames.
        inherited: Votes that what was learned of one shift counts for in another that lies near to it.
    """

    drift: DriftConfig = field(default_factory=DriftConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    novelty: NoveltyConfig = field(default_factory=NoveltyConfig)
    dependence: DependenceConfig = field(default_factory=DependenceConfig)
    recenter: RecenterConfig = field(default_factory=RecenterConfig)
    equalize: EqualizeConfig = field(default_factory=EqualizeConfig)
    ports: PortsConfig = field(default_factory=PortsConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    latest: LatestConfig = field(default_factory=LatestConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    tail: TailConfig = field(default_factory=TailConfig)
    observe_every: int = 16
    attend: int = 2048
    snapshot_every: int = 512
    watch_every: int = 2048
    confirm_ports: int = 1
    confirm_tail: int = 4
    young: int = 8
    inherited: float = 64.0


def choose_level(level: str, encoder: Encoder) -> str:
    """`level`, or the best default for `auto`: ports where the bundle has them.

    Raises:
        UnknownNameError: There is no such level.
        InputError: The bundle does not adapt, or has no ports, or no training step.
    """
    if level not in ("auto", *LEVELS):
        raise UnknownNameError("level", level, ("auto", *LEVELS))
    if encoder.manifest.get("adaptable", True) is not True:
        raise InputError(
            f"{encoder.bundle.path} only embeds: it was written by edgessl state export, and what its own world looks like "
            "was never measured. Adapt with the bundle that it was made from, or export the encoder anew"
        )
    ports = bool(encoder.manifest.get("split", {}).get("ports"))
    if level == "auto":
        return "ports" if ports else "recenter"
    if level != "recenter" and not ports:
        raise InputError(f"{encoder.bundle.path} has no ports; use level recenter")
    if level == "tail" and "step" not in encoder.manifest:
        raise InputError(f"{encoder.bundle.path} has no training step; use level ports")
    return level
