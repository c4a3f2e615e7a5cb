from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgessl.checkpoint import read_checkpoint, read_ranges, write_checkpoint
from edgessl.distill import Distillation, DistillationConfig, RoundedDistillation, distill
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import CheckpointError, InputError, Interrupted
from edgessl.recipes import Terms, Views
from edgessl.signals import image_spec
from edgessl.trainer import Run, seeded
from tests.training.conftest import SPEC, frames


def _teacher(dim: int = 5) -> EncoderModule:
    with seeded(8):
        return build_encoder("conv_small", SPEC, widths=(6, 9), dim=dim).eval()


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    (tmp_path / "teacher").mkdir()
    write_checkpoint(tmp_path / "teacher", _teacher(), {})
    return tmp_path / "teacher"


def _run(steps: int, **more: object) -> Run:
    return Run(steps=steps, batch=12, lr=2e-2, seed=2, log_every=1, progress=False, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("dim", [5, 3])
def test_the_student_comes_nearer_to_its_teacher_at_any_width(teacher: Path, tmp_path: Path, dim: int) -> None:
    options = {"widths": (4, 7), "dim": dim}
    run = {"encoder": "conv_small", "encoder_options": options}
    first = distill(teacher, frames(), output=tmp_path / "a", run=_run(1), **run)
    last = distill(teacher, frames(), output=tmp_path / "b", run=_run(25), **run)
    assert last["loss"]["cosine"] < 0.6 * first["loss"]["cosine"]
    assert last["shares_space"] == (dim == 5)
    student, facts = read_checkpoint(tmp_path / "b")
    assert student.dim == dim
    assert facts["parent"]["weights_sha256"] == read_checkpoint(teacher)[1]["weights_sha256"]


def test_another_family_can_be_the_student(teacher: Path, tmp_path: Path) -> None:
    options = {"dim": 6, "depth": 2, "heads": 2, "patch": 8}
    distill(teacher, frames(), encoder="vit_micro", encoder_options=options, output=tmp_path / "vit", run=_run(2))
    assert read_checkpoint(tmp_path / "vit")[0].name == "vit_micro"


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    student, teacher = _teacher(), _teacher()
    method = Distillation(student, teacher, DistillationConfig(relations=0.5, similarity=0.0))
    method.eval()
    view = torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    terms = method(Views((view, view)))
    assert {name: pytest.approx(term.item(), abs=1e-6) for name, term in terms.items()} == {"cosine": 0, "relations": 0}


def test_the_teacher_is_neither_trained_nor_kept() -> None:
    teacher = _teacher()
    method = Distillation(_teacher(), teacher, DistillationConfig()).train()
    assert not teacher.training
    assert not any("_teacher" in name for name in method.state_dict())
    assert not {id(weight) for weight in teacher.parameters()} & {id(weight) for weight in method.parameters()}


def test_frames_of_another_shape_are_refused(teacher: Path, tmp_path: Path) -> None:
    from edgessl.sources.arrays import ArraySource

    other = ArraySource("square", np.zeros((9, 16, 16, 3), np.uint8), image_spec(16, 16), [str(i) for i in range(9)])
    with pytest.raises(InputError, match=r"\(16, 16, 3\); the teacher .* \(16, 24, 3\)"):
        distill(teacher, other, encoder="conv_small", output=tmp_path / "out", run=_run(1))


def test_a_teacher_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        distill(tmp_path, frames(), encoder="conv_small", output=tmp_path / "out", run=_run(1))


def test_settings_out_of_range() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"relations": -1}, "relations is a weight, 0 or more, not -1"),
        ({"temperature": 0}, "temperature must be positive, not 0"),
        ({"teacher_temperature": -0.1}, "teacher_temperature must be positive"),
        ({"queue": 0}, "1 or more, not 0"),
        ({"hidden": -3}, "not -3"),
        ({"clean": True, "tokens": 1.0}, "tokens=0 or clean=false"),
        ({"feature": 0, "similarity": 0, "relations": 0}, "nothing to learn"),
    ]
    for settings, message in wrong:
        with pytest.raises(InputError, match=message):
            DistillationConfig(**settings)


def _rounded(teacher: Path, output: Path, steps: int = 6, **more: object) -> dict[str, object]:
    settings = {"encoder": "same", "placement": "onnxruntime", "run": _run(steps, save_every=2, workers=0)} | more
    return distill(teacher, frames(), output=output, **settings)  # type: ignore[arg-type]


def test_a_rounded_student_stays_an_ordinary_checkpoint_with_ranges(teacher: Path, tmp_path: Path) -> None:
    assert read_ranges(teacher) == {}
    facts = _rounded(teacher, tmp_path / "out")
    student, kept = read_checkpoint(tmp_path / "out")
    assert list(student.state_dict()) == list(_teacher().state_dict())
    assert torch.equal(student.stages[0][1].running_var, _teacher().stages[0][1].running_var)  # folded, so not moved
    assert kept["architecture"] == {"name": "conv_small", "options": {"widths": [6, 9], "dim": 5}}
    assert kept["start"]["weights_sha256"] == read_checkpoint(teacher)[1]["weights_sha256"]
    assert facts["quantization"] == {"placement": "onnxruntime"}
    ranges = read_ranges(tmp_path / "out")
    assert set(ranges) == {
        *(f"{end}.stages.{layer}" for end in ("input", "output") for layer in ("0.0", "1.1")),
        "input.pool.project",
    }
    assert all(low <= 0 < high for low, high in ranges.values())


def test_what_is_learned_rounded_is_nearer_when_rounded(teacher: Path, tmp_path: Path) -> None:
    first = _rounded(teacher, tmp_path / "a", run=_run(1))
    last = _rounded(teacher, tmp_path / "b", run=Run(steps=40, batch=12, lr=1e-3, seed=2, log_every=1, progress=False))
    assert last["loss"]["cosine"] < 0.7 * first["loss"]["cosine"]  # type: ignore[index]


def test_a_rounded_run_resumes_to_the_bit(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _rounded(teacher, tmp_path / "whole")
    forward, calls = RoundedDistillation.forward, []

    def stop_at_fourth(self: RoundedDistillation, batch: Views) -> Terms:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(RoundedDistillation, "forward", stop_at_fourth)
        with pytest.raises(Interrupted, match="--resume"):
            _rounded(teacher, tmp_path / "stopped")
    resume = Run(steps=6, batch=12, lr=2e-2, seed=2, log_every=1, progress=False, save_every=2, workers=0, resume=True)
    _rounded(teacher, tmp_path / "stopped", run=resume)
    for file in ("encoder.safetensors", "quantization.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "stopped" / file).read_bytes()


def test_the_queue_is_for_students_in_float_unless_it_is_asked_for(teacher: Path, tmp_path: Path) -> None:
    options = {"encoder": "conv_small", "encoder_options": {"widths": (4, 7), "dim": 5}}
    assert set(distill(teacher, frames(), output=tmp_path / "a", run=_run(1), **options)["loss"]) == {  # type: ignore[arg-type]
        "loss",
        "cosine",
        "similarity",
    }
    assert set(_rounded(teacher, tmp_path / "b", run=_run(1))["loss"]) == {"loss", "cosine"}  # type: ignore[call-overload]


def test_a_float_student_can_be_trained_further(teacher: Path, tmp_path: Path) -> None:
    options = {"widths": (4, 7), "dim": 5}
    distill(teacher, frames(), encoder="conv_small", encoder_options=options, output=tmp_path / "a", run=_run(15))
    again = distill(teacher, frames(), encoder="same", start=tmp_path / "a", output=tmp_path / "b", run=_run(1))
    cold = distill(teacher, frames(), encoder="conv_small", encoder_options=options, output=tmp_path / "c", run=_run(1))
    assert again["loss"]["cosine"] < 0.8 * cold["loss"]["cosine"]


def test_settings_of_int8_that_contradict_each_other(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--encoder same --init FLOAT_STUDENT --int8"):
        _rounded(teacher, tmp_path / "out", encoder="conv_small")
    with pytest.raises(InputError, match="--precision 32-true"):
        _rounded(teacher, tmp_path / "out", run=_run(1, precision="bf16-mixed"))
    with pytest.raises(InputError, match="holds encoder 'conv_small', not 'vit_micro'"):
        _rounded(teacher, tmp_path / "out", encoder="vit_micro", start=teacher)
    with pytest.raises(InputError, match=r"leave --set encoder\.dim out"):
        _rounded(teacher, tmp_path / "out", encoder_options={"dim": 3})


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_ranges_that_are_not_those_of_the_training_are_refused(teacher: Path, tmp_path: Path, harm: str) -> None:
    _rounded(teacher, tmp_path / "out", run=_run(1))
    path = tmp_path / "out" / "quantization.safetensors"
    if harm == "changed":
        path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match=r"quantization\.safetensors changed after it was written"):
        read_ranges(tmp_path / "out")
