"""Bundles carry frames of the source, and a tail that rehearsed with them sees past what disturbs the stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter

import edgessl
from edgessl.bundle import Kind, open_bundle, write_manifest
from edgessl.encoders.camera import with_camera
from edgessl.errors import BundleError, InputError
from edgessl.export.bundle import export
from edgessl.export.config import ExportConfig
from edgessl.export.train_step import StepConfig
from edgessl.metrics import cosines
from edgessl.runtimes.adapt.equalize import EqualizeConfig, Equalizer
from edgessl.runtimes.adapt.guard import Guard, GuardConfig
from edgessl.runtimes.adapt.latest import LatestConfig
from edgessl.runtimes.adapt.memory import MemoryConfig
from edgessl.runtimes.adapt.rehearsal import rehearsal_of
from edgessl.runtimes.adapt.replay import Replay
from edgessl.runtimes.adapt.seen import Seen
from edgessl.runtimes.adapt.tail import TailConfig
from edgessl.runtimes.adapt.views import ViewsConfig
from edgessl.runtimes.prepare import prepared
from edgessl.runtimes.split import Tail, Trunk
from edgessl.signals import image_spec
from edgessl.sources.arrays import ArraySource
from tests.export.conftest import smooth_frames, trained_enough

CONFIG = ExportConfig(
    precision="fp32", calibration=40, statistics=200, golden=24, anchors=9, step=StepConfig(batch=8, anchors=8)
)


def written(folder: Path, config: ExportConfig = CONFIG, say: Callable[[str], None] = print) -> Path:
    encoder, frames = trained_enough("conv_small"), smooth_frames(240)
    source = ArraySource("frames", frames, image_spec(32, 40), [str(row) for row in range(len(frames))])
    return export(encoder, {"recipe": "none"}, source, folder / "robot.edgessl", config=config, say=say).path


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("rehearsal"))


def stored(path: Path) -> np.ndarray:
    return open_bundle(path).tensors("rehearsal", "frames")["frames"]


def test_frames_of_the_source_are_stored_but_none_of_the_golden_ones(robot: Path) -> None:
    frames = stored(robot)
    assert (frames.dtype, frames.shape) == (np.uint8, (200, 32, 40, 3))
    source = {frame.tobytes() for frame in smooth_frames(240)}
    golden = {frame.tobytes() for frame in open_bundle(robot).tensors("golden", "samples")["samples"]}
    kept = {frame.tobytes() for frame in frames}
    assert len(kept) == 200
    assert kept < source
    assert not kept & golden


@pytest.mark.parametrize("count", [0, 20])
def test_who_exports_is_told_that_frames_go_along(tmp_path: Path, count: int) -> None:
    said: list[str] = []
    written(tmp_path, replace(CONFIG, rehearsal=count), said.append)
    assert any("--rehearsal 0 leaves them out" in line for line in said) == (count > 0)


def test_no_frame_leaves_home_where_that_is_not_wanted(tmp_path: Path) -> None:
    bundle = open_bundle(written(tmp_path, replace(CONFIG, rehearsal=0)))
    assert not [artefact for artefact in bundle.artefacts if artefact.role == "rehearsal"]
    assert rehearsal_of(bundle, bundle.tensors("source"), lambda frames: frames) is None
    with edgessl.open(bundle.path) as encoder, encoder.learner(tmp_path / "state", level="tail") as learner:
        assert learner.observe(smooth_frames(64, seed=5)).shape == (64, encoder.dim)
    with pytest.raises(InputError, match="0 or more, not -1"):
        ExportConfig(rehearsal=-1)


@pytest.mark.parametrize(
    ("side", "wanted", "count"), [(32, 512, 512), (64, 512, 341), (224, 512, 0), (224, 20, 20), (32, 0, 0)]
)
def test_four_megabytes_are_the_most(side: int, wanted: int, count: int) -> None:
    assert ExportConfig(rehearsal=wanted).rehearsed(side * side * 3) == count


def test_a_camera_of_another_size_has_none(tmp_path: Path) -> None:
    encoder, frames = with_camera(trained_enough("conv_small"), 48, 60), smooth_frames(120, 48, 56)[:, :, :60]
    frames = np.pad(frames, ((0, 0), (0, 0), (0, 4), (0, 0)), mode="edge")
    source = ArraySource("frames", frames, image_spec(48, 60), [str(row) for row in range(len(frames))])
    path = export(encoder, {"recipe": "none"}, source, tmp_path / "robot.edgessl", config=CONFIG).path
    assert "rehearsal" not in {artefact.role for artefact in open_bundle(path).artefacts}


def test_a_tail_that_rehearsed_gives_hazy_frames_more_of_their_clean_vectors(robot: Path) -> None:
    rng = np.random.default_rng(0)
    clean = smooth_frames(300, seed=21)
    cloud = gaussian_filter(rng.normal(size=clean.shape[:3]), (0, 3, 3))[..., None]
    hazy = np.clip(40 + 0.4 * clean + 500 * cloud, 0, 255).round().astype(np.uint8)
    said: list[str] = []
    with (
        edgessl.open(robot, precision="fp32") as encoder,
        Trunk(encoder.bundle, engine="onnxruntime", precision="fp32") as trunk,
        Tail(encoder.bundle, engine="onnxruntime") as tail,
    ):
        source = encoder.bundle.tensors("source")
        world = Equalizer(source, None, EqualizeConfig(known=100))
        world.observe(prepared(hazy[:200], source))
        assert world.stream(4.0) is None  # 50 independent frames
        replay = Replay(
            encoder, source, trunk, TailConfig(steps_per_frame=1.0, warm_up=4), MemoryConfig(novelty=0.0), LatestConfig(),
            ViewsConfig(), factory=tail, say=lambda kind, **_: said.append(kind), may_step=lambda: True,
        )  # fmt: skip
        guard = Guard(
            GuardConfig(anchor_cosine=-1.0, anchor_overlap=0.0, lidar=0.0, collapse_rank=0.0, collapse_spread=0.0)
        )
        for start in range(0, 192, 16):
            shown = hazy[start : start + 16]
            observed = trunk.run(shown, trunk.identity)
            served, every = tail.run(observed.latents), np.ones(len(shown), bool)
            seen = Seen(
                frames=shown,
                observed=observed,
                raw=served,
                served=served,
                whitened=np.zeros((len(shown), 1)),
                novel=every,
            )
            assert not replay.learn(
                seen, lambda frames: trunk.run(frames, trunk.identity), guard, rng, world.stream(1.0)
            )
        latents = trunk.run(hazy[200:], trunk.identity).latents
        wanted, before, after = encoder.embed(clean[200:]), tail.run(latents), replay.serving.run(latents)
        replay.close()
    assert set(said) == {"accepted"}
    lost, still = (1 - cosines(wanted, each).mean() for each in (before, after))
    assert still < 0.7 * lost


def test_frames_of_another_shape_are_refused(robot: Path, tmp_path: Path) -> None:
    other = copytree(robot, tmp_path / "other.edgessl")
    save_file({"frames": np.zeros((9, 32, 32, 3), np.uint8)}, other / "rehearsal.safetensors")
    bundle = open_bundle(robot)
    kinds = {
        artefact.path: Kind(artefact.role, artefact.precision, artefact.engine, artefact.batch)
        for artefact in bundle.artefacts
    }
    write_manifest(other, kinds, dict(bundle.manifest))
    with pytest.raises(BundleError, match=r"frames is uint8 \(9, 32, 32, 3\), not uint8 \(9, 32, 40, 3\)"):
        stored(other)
