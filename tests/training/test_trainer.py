"""A training that was stopped goes on as if it had not been, and never leaves half a thing behind."""

from __future__ import annotations

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from edgessl.checkpoint import read_checkpoint
from edgessl.errors import InputError, Interrupted, OutputExistsError, UnknownNameError
from edgessl.loop import Progress
from edgessl.trainer import Run

Fit = Callable[..., tuple[Any, dict[str, Any]]]


def _stop(term: Tensor) -> Tensor:
    raise KeyboardInterrupt


def _terminate(term: Tensor) -> Tensor:
    signal.raise_signal(signal.SIGTERM)
    return term


def _weights(path: Path) -> dict[str, Tensor]:
    return load_file(path / "encoder.safetensors")


def _losses(path: Path) -> dict[int, str]:
    rows: dict[int, str] = {}
    for file in sorted(path.glob("log/*/metrics.csv")):
        with file.open() as lines:
            rows |= {int(row["step"]): row["loss"] for row in csv.DictReader(lines)}
    return rows


@pytest.mark.parametrize("mischief", [{2: _stop}, {5: _stop}, {12: _stop}, {7: _terminate}])
def test_resume_equals_no_stop_to_the_bit(fit: Fit, tmp_path: Path, mischief: Any) -> None:
    whole, facts = fit("whole")
    with pytest.raises(Interrupted, match="--resume"):
        fit("stopped", mischief=mischief)
    assert not (tmp_path / "stopped").exists()
    resumed, again = fit("stopped", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert all(
        torch.equal(value, _weights(tmp_path / "stopped")[n]) for n, value in _weights(tmp_path / "whole").items()
    )
    assert _losses(tmp_path / "whole") == _losses(tmp_path / "stopped")
    assert facts["loss"] == again["loss"]
    assert len(_losses(tmp_path / "whole")) == 13


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(fit: Fit, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        fit(name, seed=seed)
    assert _losses(tmp_path / "a") == _losses(tmp_path / "b") != _losses(tmp_path / "c")


def test_the_way_the_samples_are_read_does_not_matter(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit("memory")
    monkeypatch.setattr("edgessl.data.frames.MEMORY_LIMIT_BYTES", 0)
    fit("demand")
    assert _losses(tmp_path / "memory") == _losses(tmp_path / "demand")


def test_the_checkpoint_is_whole_and_the_training_folder_goes(fit: Fit, tmp_path: Path) -> None:
    recipe, facts = fit("out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    encoder, written = read_checkpoint(tmp_path / "out")
    assert written["recipe"] == "wobble"
    assert written["data"]["samples"] == 29
    assert (written["steps"], written["batch"], written["lr"]) == (13, 6, 1e-3)
    assert json.dumps(facts)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), recipe.encoder.parameters(), strict=True))


def test_ctrl_c_works_again_afterwards(fit: Fit) -> None:
    handler, before = signal.getsignal(signal.SIGINT), torch.random.get_rng_state()
    with pytest.raises(Interrupted, match=r"step 2; the state of step 0") as stopped:
        fit("out", mischief={2: _stop})
    assert stopped.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is handler
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_run_killed_while_its_checkpoint_was_written_has_nothing_to_train(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise MemoryError

    whole, _ = fit("whole")
    with monkeypatch.context() as patch:
        patch.setattr("edgessl.trainer.write_checkpoint", killed)
        with pytest.raises(MemoryError):
            fit("out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.training", "whole"]
    resumed, _ = fit("out", resume=True)
    assert resumed.calls == 0
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_resuming_with_another_setting_names_it(fit: Fit) -> None:
    with pytest.raises(Interrupted):
        fit("out", mischief={7: _stop})
    with pytest.raises(InputError, match=r"has lr 0\.001, not 0\.002"):
        fit("out", resume=True, lr=2e-3)
    with pytest.raises(InputError, match="--resume to go on"):
        fit("out")
    fit("out", overwrite=True)


def test_resuming_nothing_begins_at_step_0(fit: Fit, tmp_path: Path) -> None:
    fit("whole")
    fit("out", resume=True)
    assert _losses(tmp_path / "whole") == _losses(tmp_path / "out")


def test_after_settings_that_cannot_be_used_the_corrected_command_works(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be taken"):
        fit("out", batch=30)
    with pytest.raises(InputError, match="not finite"):
        fit("out", mischief={2: lambda term: term * float("nan")})
    assert list(tmp_path.iterdir()) == []
    fit("out")


def test_a_failure_after_a_state_says_how_to_begin_again(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not finite.*state of step 5 is in .*add --overwrite"):
        fit("out", mischief={7: lambda term: term * float("nan")})
    with pytest.raises(InputError, match="--resume"):
        fit("out", lr=1e-4)
    fit("out", lr=1e-4, overwrite=True)


def test_an_existing_output_is_refused_before_training(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputExistsError):
        fit("out")
    fit("out", overwrite=True)


def test_a_loss_that_is_not_finite_names_step_and_term(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"step 4 .* 'spread' is nan.*--lr than 0\.001"):
        fit("out", mischief={4: lambda term: term * float("nan")})
    assert not (tmp_path / "out").exists()


def test_a_batch_larger_than_the_data(fit: Fit) -> None:
    with pytest.raises(InputError, match="a batch of 30 cannot be taken from 29 samples"):
        fit("out", batch=30)


def test_the_default_batch_shrinks_to_the_data(fit: Fit) -> None:
    from tests.training.conftest import frames

    assert fit("out", data=frames(4), steps=2)[1]["batch"] == 4


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"steps": 0}, InputError),
        ({"steps": 3, "epochs": 2}, InputError),
        ({"lr": -1.0}, InputError),
        ({"seed": -1}, InputError),
        ({"batch": 0}, InputError),
        ({"workers": -1}, InputError),
        ({"precision": "8"}, UnknownNameError),
        ({"log": "cvs"}, UnknownNameError),
        ({"num_nodes": 0}, InputError),
        ({"strategy": "fsdp"}, UnknownNameError),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Run(**wrong)


def test_an_accelerator_that_is_not_there(fit: Fit) -> None:
    with pytest.raises(InputError, match="accelerator 'tpu'"):
        fit("out", accelerator="tpu")


def test_several_machines_are_started_from_outside(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="torchrun --nnodes 2"):
        fit("out", accelerator="cpu", num_nodes=2)
    assert list(tmp_path.iterdir()) == []


def test_the_log_has_the_rows_that_were_asked_for(fit: Fit, tmp_path: Path) -> None:
    fit("out", log_every=4)
    assert [step for step, loss in _losses(tmp_path / "out").items() if loss] == [0, 4, 8, 12]


@pytest.mark.parametrize("every", [1, 4, 100])
def test_the_progress_bar_reaches_its_total(every: int) -> None:
    bar = Progress(6, every=every)
    trainer: Any = SimpleNamespace(is_global_zero=True, global_step=0)
    bar.on_train_start(trainer, torch.nn.Identity())  # type: ignore[arg-type]  # it only asks it for its last loss
    for trainer.global_step in range(1, 7):
        bar.on_train_batch_end(trainer, torch.nn.Identity())  # type: ignore[arg-type]
    bar.teardown(trainer, torch.nn.Identity(), "fit")  # type: ignore[arg-type]
    assert bar._bar.finished
