"""What a state folder would serve in the shift that it learned last, without a learner and without changing the folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgessl.bundle import MANIFEST, Bundle
from edgessl.errors import InputError, StateError
from edgessl.files import sha256_of
from edgessl.runtimes.adapt.alignment import Alignment
from edgessl.runtimes.adapt.config import LearnerConfig
from edgessl.runtimes.adapt.equalize import Equalizer
from edgessl.runtimes.adapt.served import Served
from edgessl.runtimes.adapt.state import State
from edgessl.runtimes.adapt.store import Store, is_state, snapshot_files


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What was learned of one shift.

    Attributes:
        served: The version that serves while the world is in that shift.
        snapshot: Number of the snapshot.
        sha256: Of its file.
        level: That the learner had.
        frames, votes: Observed, and learned from, over the life of the state.
        damaged: Newer snapshots that were passed over, with the reason.
    """

    served: Served
    snapshot: int
    sha256: str
    level: str
    frames: int
    votes: int
    damaged: dict[str, str] = field(default_factory=dict)


def read_learned(bundle: Bundle, folder: Path) -> Learned:
    """What the newest whole snapshot of `folder` learned of its latest shift, present or over.

    Raises:
        InputError: It is no state folder, or nothing in it is learned yet.
        StateError: A learner holds the folder, the snapshot is another bundle's, or adaptation was stopped for good.
    """
    if not is_state(folder):
        raise InputError(f"{folder} holds no state; give the folder that was given to edgessl adapt --state")
    store = Store(
        folder, bundle=sha256_of(bundle.path / MANIFEST), space_id=bundle.space_id, name=bundle.path.resolve().name
    )
    try:
        loaded = store.load()
        digests = {number: sha256_of(file) for number, file in snapshot_files(folder) if number == loaded.number}
    finally:
        store.close()
    if loaded.state is None:
        told = f"; damaged: {', '.join(loaded.damaged)}" if loaded.damaged else ""
        raise InputError(f"{folder} has no whole snapshot{told}; adapt first: edgessl adapt {bundle.path} FRAMES")
    try:
        values = loaded.state.values
        level, frozen = str(values["learner.level"]), bool(values["learned.guard.frozen"])
        frames, votes = int(values["learner.frames"]), int(values["learned.stream.votes"])
        served = _served(bundle, level, loaded.state.part("learned").part("learned"), bundle.tensors("source"))
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise StateError(f"{folder} does not fit this edgessl: {error!r}; choose another state folder") from error
    if frozen:
        raise StateError(
            f"snapshot {loaded.number} of {folder} was stopped after too many rollbacks and serves the factory; go back "
            f"to one of before: edgessl state list {folder}"
        )
    if served.same(Served()):
        raise InputError(
            f"snapshot {loaded.number} of {folder} learned nothing yet ({frames} frames, {votes} learned from): it serves "
            "the factory's encoder, which is in the bundle already. Let it adapt to more frames of a shift"
        )
    return Learned(
        served=served,
        snapshot=loaded.number,
        sha256=digests[loaded.number],
        level=level,
        frames=frames,
        votes=votes,
        damaged=loaded.damaged,
    )


def _served(bundle: Bundle, level: str, learned: State, source: Mapping[str, Any]) -> Served:
    """The version that a learner of this level serves, as if its last shift were the present one."""
    split = bundle.manifest.get("split", {})
    # Whether it was a map of patches or a filter, and for which engine, stands in the state itself.
    front = any(name.startswith("alignment.present.front.") for name in learned.tensors)
    equalizer = Equalizer(source, None, LearnerConfig().equalize) if front else None
    ports = range(len(split.get("ports", [])))
    squares = {index: learned.tensors[f"alignment.present.ports.{index}.square"] for index in ports}
    mixing = [index for index, square in squares.items() if square.ndim == 2]
    alignment = Alignment(source, len(ports), LearnerConfig(), equalizer, mixing)
    alignment.restore(learned.part("alignment"))
    training = learned.part("replay").part("training")
    tail = training.part("served").tensors if level == "tail" and training.values.get("accepted") else None
    return Served(
        number=1,
        ports=alignment.ports if level != "recenter" else None,
        affine=alignment.affine,
        front=alignment.front,
        tail=None if tail is None else {name: np.asarray(value, np.float32) for name, value in tail.items()},
    )
