"""Arrays of another shape than the manifest promises are found when they are read."""

from __future__ import annotations

import numpy as np
import pytest

from edgessl.contents import check_arrays
from edgessl.signals import InputSpec, image_spec

SPLIT = {"latent": [7, 3, 4], "channel_axis": 1, "ports": [{"channels": 5}, {"channels": 7}]}


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def source() -> dict[str, np.ndarray]:
    ports = {f"port{index}.{part}": floats(size) for index, size in enumerate((5, 7)) for part in ("mean", "var")}
    drift = {"mean": floats(10), "whiten": floats(8, 10), "bank": floats(20, 8), "threshold": floats()}
    anchors = {"anchor.latents": np.ones((9, 7, 3, 4), np.int8), "anchor.vectors": floats(9, 6)}
    embedding = {"embedding.mean": floats(6), "embedding.var": floats(6), "latent.scale": floats(7)}
    return ports | {f"drift.{name}": value for name, value in drift.items()} | anchors | embedding


def check(role: str, arrays: dict[str, np.ndarray], spec: InputSpec | None = None) -> None:
    check_arrays(role, arrays, spec=spec or image_spec(12, 10), dim=6, split=SPLIT)


def test_what_export_writes_passes():
    check("source", source())
    check("golden", {"samples": np.ones((3, 12, 10, 3), np.uint8), "vectors": floats(3, 6)})
    series = InputSpec(kind="series", shape=(2, 50), dtype="float32", units="g")
    check("golden", {"samples": floats(3, 2, 50), "vectors": floats(3, 6)}, series)


@pytest.mark.parametrize("name", source())
def test_another_shape_is_found_in_every_array(name):
    arrays = source()
    check("source", {key: value for key, value in arrays.items() if key != name})  # absent is not wrong
    for other in (arrays[name][None].repeat(2, 0), arrays[name].astype(np.uint8)):
        with pytest.raises(ValueError, match=name):
            check("source", arrays | {name: other})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples", np.ones((3, 10, 12, 3), np.uint8)),
        ("samples", np.ones((3, 12, 10, 3), np.float32)),
        ("samples", np.ones((0, 12, 10, 3), np.uint8)),
        ("vectors", floats(4, 6)),
        ("vectors", floats(3, 7)),
        ("vectors", np.ones((3, 6), np.int8)),
    ],
)
def test_golden_samples_and_vectors_belong_together(name, value):
    golden = {"samples": np.ones((3, 12, 10, 3), np.uint8), "vectors": floats(3, 6)}
    with pytest.raises(ValueError, match=r"samples|vectors"):
        check("golden", golden | {name: value})


def test_a_letter_is_one_size_in_all_arrays():
    with pytest.raises(ValueError, match=r"drift\.bank"):
        check("source", source() | {"drift.bank": floats(20, 9)})
    with pytest.raises(ValueError, match=r"anchor\.latents"):
        check("source", source() | {"anchor.latents": np.ones((8, 7, 3, 4), np.int8)})
