"""A state folder between two runs: what is in it, the way back, and the way to the factory.

Each of these holds the folder while it works, so that none meets a learner that writes there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgessl.errors import InputError, StateError
from edgessl.runtimes.adapt.store import Ring, check_format, is_state, read_snapshot


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One snapshot; what is not known of a damaged one is `None`.

    Attributes:
        written: When, by the clock of that time, in UTC.
        damaged: Why it cannot be loaded; empty for a whole one.
        frames: Observed over the life of the state.
        votes: Frames of them that were learned from.
        frozen: Adaptation had been stopped after too many rollbacks.
        origin: The snapshot that `roll_back` went back to when it wrote this one.
        bundle: SHA-256 of its manifest.
        name: Of the bundle, for people.
    """

    number: int
    file: str
    written: str
    size_bytes: int
    damaged: str = ""
    frames: int | None = None
    votes: int | None = None
    level: str | None = None
    frozen: bool | None = None
    origin: int | None = None
    bundle: str | None = None
    name: str | None = None
    space_id: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def list_snapshots(folder: Path) -> list[Snapshot]:
    """Every snapshot of a state folder, newest first; a learner starts from the first one that is whole.

    Raises:
        StateError: A learner holds the folder.
        InputError: It is no state folder.
    """
    with _held(folder) as ring:
        return _rows(ring)


def roll_back(folder: Path, to: int | None = None) -> Snapshot:
    """Write an older snapshot again, as the newest one; those between stay in the ring until they are pushed out.

    Everything goes back to it: what was learned, the count of frames, the guard and its count of rollbacks.

    Args:
        folder: Of the state.
        to: Number of a whole snapshot. Without it, the newest whole one that is older than what a learner starts from
            now; called again, it goes one further back.

    Returns:
        The snapshot that was written.

    Raises:
        StateError: A learner holds the folder, or the snapshot is damaged.
        InputError: It is no state folder, or there is no such snapshot to go back to.
    """
    with _held(folder) as ring:
        chosen = _chosen(folder, _rows(ring), to)
        tensors, values = read_snapshot(folder / chosen.file)
        origin = chosen.number if chosen.origin is None else chosen.origin
        number = ring.write(tensors, {**values, "origin": origin})
        return next(_row(each, file) for each, file in ring.files() if each == number)


def reset(folder: Path) -> int:
    """Remove every snapshot, so that the next learner starts from its bundle's factory state; any bundle may then.

    A power cut halfway leaves the newest snapshot: what was not reset in whole is as it was.

    Returns:
        How many there were.

    Raises:
        StateError: A learner holds the folder.
        InputError: It is no state folder.
    """
    with _held(folder) as ring:
        return ring.clear()


def _held(folder: Path) -> Ring:
    if not is_state(folder):
        raise InputError(f"{folder} holds no state; give the folder that was given to edgessl adapt --state")
    return Ring(folder)


def _rows(ring: Ring) -> list[Snapshot]:
    return [_row(number, file) for number, file in ring.files()]


def _row(number: int, file: Path) -> Snapshot:
    facts = file.stat()
    written = datetime.fromtimestamp(int(facts.st_mtime), tz=timezone.utc).isoformat()
    disk: dict[str, Any] = {"number": number, "file": file.name, "written": written, "size_bytes": facts.st_size}
    try:
        _, values = read_snapshot(file)
        check_format(file, values)
    except StateError as error:
        return Snapshot(**disk, damaged=str(error))
    learned = values["values"]
    return Snapshot(
        **disk,
        frames=learned.get("learner.frames"),
        votes=learned.get("learned.stream.votes"),
        level=learned.get("learner.level"),
        frozen=learned.get("learned.guard.frozen"),
        origin=values.get("origin"),
        bundle=values["bundle"],
        name=values.get("name"),
        space_id=values["space_id"],
    )


def _chosen(folder: Path, rows: Sequence[Snapshot], to: int | None) -> Snapshot:
    """The snapshot to go back to."""
    whole = [row for row in rows if not row.damaged]
    there = ", ".join(str(row.number) for row in reversed(whole)) or "none"
    factory = f"to start from the factory, type edgessl state reset {folder}"
    if to is None:
        if not whole:
            raise StateError(f"no snapshot in {folder} is whole; {factory}")
        now = whole[0].number if whole[0].origin is None else whole[0].origin
        older = [row for row in whole if row.number < now]
        if not older:
            raise InputError(
                f"{folder} has nothing older than snapshot {now} that is whole (whole: {there}); {factory}"
            )
        return older[0]
    asked = [row for row in rows if row.number == to]
    if not asked:
        raise InputError(f"no snapshot {to} in {folder}; whole ones: {there}; {factory}")
    if asked[0].damaged:
        raise StateError(f"snapshot {to} cannot be gone back to: {asked[0].damaged}; whole ones: {there}; {factory}")
    if asked[0] is whole[0]:
        raise InputError(f"a learner starts from snapshot {to} already; whole ones: {there}; {factory}")
    return asked[0]
