"""In which order a robot meets the frames of a labelled test set.

Labels make the order and score what comes out; nothing that adapts sees them.
"""

from __future__ import annotations

import numpy as np
from corruption_kinds import SIDE, sampled
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Frames = NDArray[np.uint8]  # (n, 32, 32, 3)

_AT_ONCE = 30  # images of a video; bounds the memory


def iid(labels: Indices, *, seed: int) -> Indices:
    """All indices in a random order; `labels` is `(n,)`, as for the other orders."""
    return np.random.default_rng(seed).permutation(len(labels))


def class_sorted(labels: Indices, *, seed: int) -> Indices:
    """One class after the other, classes and their frames in a random order."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.permutation(np.flatnonzero(labels == each)) for each in rng.permutation(np.unique(labels))]
    )


def dirichlet(labels: Indices, delta: float, *, seed: int, slots: int | None = None) -> Indices:
    """Each class falls on stretches of time by a Dirichlet draw, as in NOTE (arXiv:2208.05117) and RoTTA (2303.13899).

    Within a stretch the classes come one after the other, as in RoTTA; so a large `delta` is correlated too, in more
    and shorter runs.

    Args:
        labels: `(n,)`.
        delta: Concentration; a class falls on fewer stretches when it is smaller. The papers use 0.1.
        seed: Of the draws.
        slots: Stretches of time; as many as classes when None, as in RoTTA.

    Returns:
        `(n,)`, each index once.
    """
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    slots = len(classes) if slots is None else slots
    runs = []
    for each in classes:
        members = rng.permutation(np.flatnonzero(labels == each))
        ends = np.rint(rng.dirichlet([delta] * slots).cumsum()[:-1] * len(members)).astype(int)
        runs.append(np.split(members, ends))
    return np.concatenate([runs[each][slot] for slot in range(slots) for each in rng.permutation(len(classes))])


def video(frames: Frames, *, seed: int, copies: int = 30) -> tuple[Frames, Indices]:
    """Each image for a second of video: the camera sways by up to two pixels, the light by up to a tenth, the sensor hisses.

    Args:
        frames: uint8 `(n, 32, 32, 3)`, in the order in which they are shown.
        seed: Of the sway, the light and the noise.
        copies: Frames of each image.

    Returns:
        uint8 `(n * copies, 32, 32, 3)`, and of which image each is `(n * copies,)`.
    """
    rng = np.random.default_rng(seed)
    shown = np.empty((len(frames) * copies, *frames.shape[1:]), np.uint8)
    line, time = np.arange(SIDE), np.linspace(0, 1, copies, endpoint=False)
    for start in range(0, len(frames), _AT_ONCE):
        part = np.repeat(frames[start : start + _AT_ONCE], copies, 0).astype(np.float32) / 255
        # Three slow waves for each image: down, right, brighter.
        turns, phase = (
            rng.uniform(0.5, 1.5, (3, len(part) // copies, 1)),
            rng.uniform(0, 1, (3, len(part) // copies, 1)),
        )
        waves = np.sin(2 * np.pi * (turns * time + phase)).reshape(3, -1, 1, 1)
        rows, columns = np.broadcast_arrays(line[:, None] + 2 * waves[0], line + 2 * waves[1])
        seen = sampled(part, rows, columns) * (1 + 0.1 * waves[2, ..., None])
        seen += 0.01 * rng.standard_normal(part.shape, np.float32)
        shown[start * copies : start * copies + len(part)] = np.rint(seen * 255).clip(0, 255)
    return shown, np.repeat(np.arange(len(frames)), copies)
