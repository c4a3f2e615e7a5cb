"""The check passes a recipe that learns, and fails one that does not, or whose control learns as well."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from edgessl import check as module
from edgessl.check import Contender, check, judged, unpaired, usual_encoder
from edgessl.cli.main import app
from edgessl.data.scale import channel_scale
from edgessl.errors import InputError, UnknownNameError
from edgessl.evaluation.probes import Probed
from edgessl.recipes import build_recipe
from edgessl.signals import image_spec, series_spec
from edgessl.sources.arrays import ArraySource
from edgessl.trainer import Run

IMAGE, SERIES = image_spec(16, 24), series_spec(3, 40)
TINY = Run(steps=2, batch=6, progress=False, accelerator="cpu", devices=1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def images(count: int = 40, classes: int = 2, *, labelled: bool = True) -> ArraySource:
    """Class after class, as a folder comes; each class is brighter than the one before."""
    rng = np.random.default_rng(0)
    labels = np.sort(np.arange(count) % classes)
    frames = (rng.integers(0, 90, (count, *IMAGE.shape)) + 80 * labels[:, None, None, None]).astype(np.uint8)
    return ArraySource(
        "made", frames, IMAGE, [str(index) for index in range(count)], labels=labels if labelled else None
    )


@pytest.mark.parametrize(
    ("gains", "controls", "said"),
    [
        ({0: 0.05, 1: 0.03}, {0: 0.01}, []),
        ({0: 0.02}, {0: -0.3}, []),  # the margin itself is enough
        ({0: 0.019}, {0: 0.0}, ["under the margin of 0.02"]),
        ({0: 0.1, 1: 0.0}, {0: 0.0, 1: -0.1}, ["no gain with seed 1"]),
        ({0: 0.05}, {}, ["was not run"]),
        ({0: 0.05, 1: 0.05}, {0: 0.04, 1: 0.0}, ["gains +0.020 from unpaired views"]),
        ({0: 0.05, 1: 0.01}, {0: -0.05, 1: 0.01}, ["as much as the recipe with seed 1"]),
        ({0: float("nan")}, {0: float("nan")}, ["mean gain is", "no gain", "control gains", "as much"]),
    ],
)
def test_the_rule(gains: dict[int, float], controls: dict[int, float], said: list[str]) -> None:
    reasons = judged(gains, controls, 0.02)
    assert len(reasons) == len(said)
    assert all(part in reason for part, reason in zip(said, reasons, strict=True))


def test_a_control_sees_each_sample_beside_another_ones_view() -> None:
    source = images()
    recipes = [
        build_recipe("byol", Contender(recipe="byol", encoder="conv_small", run=TINY).begin(source, 0)) for _ in "ab"
    ]
    samples = recipes[0].encoder.prepare(torch.from_numpy(source.read(range(6))[1]))
    paired = recipes[0].views(samples, torch.Generator().manual_seed(1))
    control = unpaired(recipes[1])
    assert control is recipes[1]
    apart = control.views(samples, torch.Generator().manual_seed(1))
    assert torch.equal(apart.views[0], paired.views[0])
    assert torch.equal(apart.views[1], paired.views[1].roll(1, 0))


def test_training_begins_with_the_untrained_encoder_and_leaves_a_plain_one() -> None:
    source = images()
    contender = Contender(recipe="simclr", encoder="conv_small", run=TINY, encoder_options={"dim": 8})
    begun = contender.begin(source, 3)
    still = Contender(
        recipe="simclr",
        encoder="conv_small",
        run=Run(steps=1, batch=6, lr=1e-12, weight_decay=0, progress=False, accelerator="cpu", devices=1),
        encoder_options={"dim": 8},
    )
    kept = still.trained(source, 3)[0]
    for name, weight in kept.named_parameters():
        assert torch.allclose(weight, begun.get_parameter(name), atol=1e-9), name
    trained, facts = contender.trained(source, 3)
    assert type(trained) is type(begun)
    assert [*trained.state_dict()] == [*begun.state_dict()]  # nothing hangs on it: it exports as any other
    assert facts["paired"] is True
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), begun.parameters(), strict=True))
    control, facts = contender.trained(source, 3, paired=False)
    assert facts["paired"] is False
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), control.parameters(), strict=True))


def test_a_check_compares_what_three_encoders_know(monkeypatch: pytest.MonkeyPatch) -> None:
    found = check("simclr", images(), seeds=[4, 5], run=TINY, margin=-1.0)
    assert [row.seed for row in found.seeds] == [4, 5]
    assert all(0 <= value <= 1 for row in found.seeds for value in (row.untrained, row.trained, row.control))
    assert (found.recipe, found.encoder, found.steps) == ("simclr", "conv_small", 2)
    assert json.loads(json.dumps(found.to_json()))["passed"] is not bool(found.reasons)
    seen: list[tuple[int, int]] = []

    def probe(bank: Any, bank_labels: Any, queries: Any, labels: Any) -> Any:
        seen.append((len(bank), len(queries)))
        assert set(bank_labels) == {0, 1}
        return Probed(knn=0.5, linear=0.5, macro_f1=0.5)

    monkeypatch.setattr(module, "probed", probe)
    found = check("vicreg", images(), images(10), seeds=[0], run=TINY)
    assert seen == [(40, 10)] * 3
    assert "no gain" in " ".join(found.reasons)


def test_whole_groups_are_held_out_for_the_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    source, seen = images(), list[tuple[set[int], set[int]]]()
    source.groups = np.array([f"p{index % 8}" for index in range(len(source))])

    def vectors(encoder: Any, source: Any) -> Any:
        return np.arange(len(source))[:, None], source.labels, np.arange(len(source))

    def probe(bank: Any, bank_labels: Any, queries: Any, labels: Any) -> Any:
        seen.append((set((bank % 8).ravel()), set((queries % 8).ravel())))
        return Probed(knn=0.5, linear=0.5, macro_f1=0.5)

    monkeypatch.setattr(module, "_embedded", vectors)
    monkeypatch.setattr(module, "probed", probe)
    check("simclr", source, seeds=[0], run=TINY)
    assert all(not one & other and len(other) == 2 for one, other in seen)
    source.groups[:] = "one"  # of one group nothing can be held out whole
    check("simclr", source, seeds=[0], run=TINY)
    assert len(seen) == 6


def test_logs_with_a_column_of_labels_can_be_checked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        rows = [f"{i / 50},{rng.normal():.3f},{rng.normal() * (1 + i // 200):.3f},{i // 200}" for i in range(400)]
        (tmp_path / f"{name}.csv").write_text("time_s,ax,ay,what\n" + "\n".join(rows))
    line = f"recipes --check vicreg {tmp_path} --steps 1 --batch 6 --seeds 2 --margin 1.1"
    code, out, _ = edgessl(f"{line} --series window=40 --series label=what")
    assert (code, "vicreg with conv_series" in out) == (3, True)
    code, _, talk = edgessl(f"{line} --series window=40")
    assert (code, "--series label=NAME" in talk) == (1, True)


def test_series_are_brought_to_one_scale() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(0, 1, (30, 3, 40)) * [[1.0], [20.0], [0.0]] + [[0.0], [5.0], [-3.0]]).astype(np.float32)
    source = ArraySource("made", values, SERIES, [str(i) for i in range(30)], labels=np.arange(30) % 2)
    scale = channel_scale(source)
    np.testing.assert_allclose(scale["mean"], values.mean((0, 2), np.float64), rtol=1e-6)
    np.testing.assert_allclose(scale["std"], [*values.std((0, 2), np.float64)[:2], 1.0], rtol=1e-6)
    assert check("vicreg", source, seeds=[0], run=TINY).encoder == usual_encoder("vicreg", "series") == "conv_series"


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(InputError, match=r"made has no labels.*sub-folders"):
        check("simclr", images(labelled=False), run=TINY)
    with pytest.raises(InputError, match="has the classes"):
        check("simclr", images(), images(classes=3), run=TINY)
    with pytest.raises(InputError, match="different numbers"):
        check("simclr", images(), seeds=[1, 1], run=TINY)
    with pytest.raises(UnknownNameError, match="simclr"):
        check("simclear", images(), run=TINY)


def edgessl(line: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, shlex.split(line), prog_name="edgessl")
    return done.exit_code, done.stdout, done.stderr


def test_the_command_fails_with_3_and_says_why(tmp_path: Path) -> None:
    source = images()
    frames, labels = source.read(range(len(source)))[1], source.labels
    np.savez(tmp_path / "made.npz", x_train=frames, y_train=labels, x_test=frames[::3], y_test=labels[::3])
    line = f"recipes --check byol {tmp_path}/made.npz --steps 1 --batch 6 --seeds 2 --json"
    code, out, talk = edgessl(f"{line} --margin 1.1")
    assert code == 3
    assert json.loads(out)["passed"] is False
    assert "recipe 'byol' fails its check: the mean gain is" in talk
    code, out, talk = edgessl(line.replace(" --json", " --margin 1.1"))
    assert "control gain" in out
    assert "byol fails with a margin of 1.1" in out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("recipes frames/", "edgessl recipes --check NAME frames/"),
        ("recipes --check simclr", "edgessl recipes --check simclr DATA"),
        ("recipes --check simclr frames/ --seeds 1,a", "--seeds 0,1,2"),
        ("recipes --check simclr demo:day", "demo:day has no labels"),
    ],
)
def test_the_command_says_what_to_type(line: str, said: str) -> None:
    code, _, talk = edgessl(line)
    assert code == 1
    assert said in talk
