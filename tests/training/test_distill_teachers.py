"""Several teachers, the queue, and what is kept of teachers on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgessl.checkpoint import read_checkpoint, write_checkpoint
from edgessl.distill import Distillation, DistillationConfig, RoundedDistillation, distill
from edgessl.distillation.cache import kept_vectors
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import CheckpointError, InputError, Interrupted
from edgessl.recipes import Terms, Views
from edgessl.trainer import Run, seeded
from tests.training.conftest import SPEC, frames

OPTIONS = {"encoder": "conv_small", "encoder_options": {"widths": (4, 7), "dim": 5}}


def _teacher(seed: int, dim: int) -> EncoderModule:
    with seeded(seed):
        return build_encoder("conv_small", SPEC, widths=(6, 9), dim=dim).eval()


@pytest.fixture
def teachers(tmp_path: Path) -> list[Path]:
    folders = []
    for name, dim in (("near", 5), ("far", 8)):
        (tmp_path / name).mkdir()
        write_checkpoint(tmp_path / name, _teacher(dim, dim), {})
        folders.append(tmp_path / name)
    return folders


def _run(steps: int, **more: Any) -> Run:
    return Run(steps=steps, batch=12, lr=2e-2, seed=2, log_every=1, progress=False, **{"workers": 0} | more)


def test_terms_of_several_teachers_are_averaged_and_named_after_them() -> None:
    masters = {"near": _teacher(5, 5), "far": _teacher(8, 8)}
    with seeded(3):
        method = Distillation(_teacher(1, 5), masters, DistillationConfig(similarity=0.0, tokens=1.0)).eval()
    assert not method.shares_space
    view = torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    terms = method(Views((view, view)))
    assert list(terms) == ["cosine_near", "tokens_near", "cosine_far", "tokens_far"]
    for place, (name, master) in enumerate(masters.items()):
        a = method.project[place](method.encoder.features(view)).detach().numpy()
        b = master.features(view).numpy()
        wanted = (1 - (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean() / 2
        assert terms[f"cosine_{name}"].item() == pytest.approx(wanted, rel=1e-5)


def test_several_teachers_are_in_the_facts(teachers: list[Path], tmp_path: Path) -> None:
    one, two = teachers
    again = tmp_path / "b" / "near"
    again.parent.mkdir()
    again.mkdir()
    write_checkpoint(again, _teacher(7, 3), {})
    facts = distill(one, frames(), output=tmp_path / "out", run=_run(2), more_teachers=[two, again], **OPTIONS)
    names = {name.removeprefix("cosine_") for name in facts["loss"] if name.startswith("cosine")}
    assert names == {"near", "far", "near3"}
    assert [each["path"] for each in facts["more_teachers"]] == [str(two), str(again)]
    assert facts["parent"]["path"] == str(one)
    assert not facts["shares_space"]


def test_each_teacher_must_take_the_samples(teachers: list[Path], tmp_path: Path) -> None:
    from edgessl.signals import image_spec

    other = tmp_path / "other"
    other.mkdir()
    write_checkpoint(other, build_encoder("conv_small", image_spec(16, 16), widths=(6, 9)), {})
    with pytest.raises(InputError, match=r"the teacher in .*other takes"):
        distill(teachers[0], frames(), output=tmp_path / "out", run=_run(1), more_teachers=[other], **OPTIONS)


def test_a_projector_may_have_a_hidden_layer() -> None:
    method = Distillation(_teacher(1, 5), _teacher(2, 5), DistillationConfig(hidden=11))
    assert not method.shares_space
    assert [each.out_features for each in method.project[0].children() if isinstance(each, nn.Linear)] == [11, 5]  # type: ignore[union-attr]


def test_maps_of_different_sizes_are_compared_on_the_teachers() -> None:
    with seeded(4):
        student = build_encoder("vit_micro", SPEC, dim=6, depth=2, heads=2, patch=8)
    method = Distillation(student, _teacher(2, 5), DistillationConfig(tokens=1.0))
    view = torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    term = method(Views((view, view)))["tokens"]
    term.backward()
    assert 0 < term.item() < 2
    assert float(method.places[0].weight.grad.abs().sum()) > 0  # type: ignore[union-attr, operator]


def test_rounded_students_show_no_tokens() -> None:
    with pytest.raises(InputError, match="tokens=0"):
        RoundedDistillation(_teacher(1, 5), _teacher(2, 5), DistillationConfig(tokens=1.0), None)  # type: ignore[arg-type]


def test_the_queue_takes_in_what_the_teacher_said_and_only_in_training() -> None:
    teacher = _teacher(2, 5)
    with seeded(4):
        method = Distillation(_teacher(1, 3), teacher, DistillationConfig(similarity=1.0, queue=9)).train()
    before = method.queues[0].rows.clone()  # type: ignore[operator, union-attr]
    view = torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    method(Views((view, view)))
    unit = nn.functional.normalize(teacher.features(view), dim=1)
    assert torch.allclose(method.queues[0].rows, torch.cat([unit, before[:5]]))  # type: ignore[arg-type]
    after = method.queues[0].rows
    method.eval()(Views((view, view)))
    assert method.queues[0].rows is after


@pytest.mark.parametrize("clean", [False, True])
def test_a_run_with_a_queue_resumes_to_the_bit(
    teachers: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean: bool
) -> None:
    config = DistillationConfig(similarity=1.0, queue=30, clean=clean)
    more: dict[str, Any] = OPTIONS | {"config": config, "cache": tmp_path / "cache" if clean else None}
    distill(teachers[1], frames(), output=tmp_path / "whole", run=_run(6, save_every=2), **more)
    forward, calls = Distillation.forward, []

    def stop_at_fourth(self: Distillation, batch: Views) -> Terms:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return forward(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "forward", stop_at_fourth)
        with pytest.raises(Interrupted):
            distill(teachers[1], frames(), output=tmp_path / "cut", run=_run(6, save_every=2), **more)
    distill(teachers[1], frames(), output=tmp_path / "cut", run=_run(6, save_every=2, resume=True), **more)
    assert (tmp_path / "whole/encoder.safetensors").read_bytes() == (tmp_path / "cut/encoder.safetensors").read_bytes()


def test_what_is_kept_is_what_the_teacher_says_of_the_sample(teachers: list[Path], tmp_path: Path) -> None:
    teacher, facts = read_checkpoint(teachers[1])
    source = frames()
    kept = kept_vectors(tmp_path / "cache", teacher, facts["weights_sha256"], source)
    with torch.no_grad():
        assert torch.allclose(kept, teacher(torch.from_numpy(source.read(range(29))[1])), atol=1e-6)
    method = Distillation(_teacher(1, 5), teacher, DistillationConfig(clean=True), kept).eval()
    places, samples = torch.tensor([20, 3, 7]), teacher.prepare(torch.from_numpy(source.read([20, 3, 7])[1]))
    at_hand = method(method.views(samples, torch.Generator().manual_seed(1)))
    from_disk = method(method.views_at(places, samples, torch.Generator().manual_seed(1)))
    assert from_disk["cosine"].item() == pytest.approx(at_hand["cosine"].item(), abs=1e-6)


@pytest.mark.parametrize("memory", [True, False])
def test_a_cached_run_is_the_run_that_asks_every_time(
    teachers: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: bool
) -> None:
    if not memory:
        monkeypatch.setattr("edgessl.data.frames.FrameBatches.__init__.__kwdefaults__", {"memory_limit_bytes": 0})
    more: dict[str, Any] = OPTIONS | {"config": DistillationConfig(clean=True), "more_teachers": teachers[1:]}
    asked = distill(teachers[0], frames(), output=tmp_path / "a", run=_run(3), **more)
    monkeypatch.setattr(Distillation, "views", None)  # with what is kept the teachers see nothing
    cached = distill(teachers[0], frames(), output=tmp_path / "b", run=_run(3), cache=tmp_path / "cache", **more)
    assert cached["loss"] == pytest.approx(asked["loss"], rel=1e-4)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_teacher_is_asked_once(teachers: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, source = _teacher(5, 5), frames()
    first = kept_vectors(tmp_path, teacher, "a" * 64, source)
    monkeypatch.setattr(EncoderModule, "forward", None)
    assert torch.equal(kept_vectors(tmp_path, teacher, "a" * 64, source), first)
    for weights, data in (("b" * 64, source), ("a" * 64, frames(seed=1))):  # another teacher, other samples
        with pytest.raises(TypeError):
            kept_vectors(tmp_path, teacher, weights, data)


@pytest.mark.parametrize("harm", ["a bit", "the end", "other samples"])
def test_what_was_not_written_so_is_refused(tmp_path: Path, harm: str) -> None:
    teacher, source = _teacher(5, 5), frames()
    kept_vectors(tmp_path, teacher, "a" * 64, source)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if harm == "other samples":
        kept_vectors(tmp_path / "other", teacher, "a" * 64, frames(seed=1))
        content = next((tmp_path / "other").iterdir()).read_bytes()
    path.write_bytes(
        content[:-1] + (bytes([content[-1] ^ 1]) if harm == "a bit" else content[-1:] * (harm != "the end"))
    )
    with pytest.raises(CheckpointError, match="Delete it"):
        kept_vectors(tmp_path, teacher, "a" * 64, source)


def test_random_views_cannot_be_kept(teachers: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--set clean=true, or leave --cache out"):
        distill(teachers[0], frames(), output=tmp_path / "out", run=_run(1), cache=tmp_path / "cache", **OPTIONS)
