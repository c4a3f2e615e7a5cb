"""Two processes that share a batch learn what one process learns from the whole of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from edgessl.blocks.gather import AcrossBatchNorm, averaged, gathered, norms_across, united
from edgessl.checkpoint import read_checkpoint
from edgessl.encoders import build_encoder
from edgessl.errors import InputError
from edgessl.recipes import RECIPES, Masks, Recipe, Views, build_recipe
from edgessl.signals import image_spec
from edgessl.trainer import seeded

WORLD = 2
NAMES = [name for name, entry in RECIPES.items() if entry.encoder[0] in ("conv_small", "vit_micro")]


def _worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    try:
        found: dict[str, Any] = {name: _part(name, rank) for name in NAMES}
        found |= {"norms": _norms(rank), "united": united({"both": "why", f"of {rank}": "why"})}
        torch.save(found, f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    """What each of two processes makes of every recipe, and of the batch norms; they are started once."""
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(_worker, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def _recipe(name: str) -> tuple[Recipe, Views]:
    """A recipe with random weights, and the views of a whole batch."""
    encoder = RECIPES[name].encoder[0]
    options: dict[str, Any] = {"widths": (6, 10), "dim": 8} if encoder == "conv_small" else {}
    with seeded(5):
        recipe = build_recipe(name, build_encoder(encoder, image_spec(16, 16), **options)).train()
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(8, 3, 4, 4, generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return recipe, recipe.views(images, generator)


def _shared(views: Views, rank: int) -> Views:
    """The part of one process, as the schedule shares batches out."""
    masks, labels = views.masks, views.labels
    return Views(
        tuple(view[rank::WORLD] for view in views.views),
        None if masks is None else Masks(masks.keep[rank::WORLD], masks.hide[rank::WORLD]),
        None if labels is None else labels[rank::WORLD],
    )


def _learned(recipe: Recipe, views: Views) -> dict[str, Tensor]:
    """Loss terms, and gradients and batch statistics by name, as means over processes."""
    with seeded(0):
        terms = recipe(views)
        torch.stack(list(terms.values())).sum().backward()
    found = {f"term {name}": averaged(term.detach()) for name, term in terms.items()}
    for name, weight in recipe.named_parameters():
        if weight.grad is not None:
            found[f"gradient {name}"] = averaged(weight.grad)
    return found | {name: value for name, value in recipe.named_buffers() if "running" in name}


def _part(name: str, rank: int) -> dict[str, Tensor]:
    recipe, views = _recipe(name)
    norms_across(recipe, "cpu")
    return _learned(recipe, _shared(views, rank))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_have_the_loss_and_gradient_of_the_whole_batch(name: str, parts: Any) -> None:
    whole = _learned(*_recipe(name))
    for part in (part[name] for part in parts):
        assert set(part) == set(whole)
        steepest = max(float(value.abs().max()) for key, value in whole.items() if key.startswith("gradient "))
        for key, value in whole.items():
            least = 1e-4 * steepest if key.startswith("gradient ") else 1e-5
            torch.testing.assert_close(
                part[key], value, rtol=1e-3, atol=least, msg=lambda text, key=key: f"{key}: {text}"
            )


def _norms(rank: int) -> dict[str, Tensor]:
    found = {}
    for place, (norm, shape) in enumerate(
        [
            (nn.BatchNorm1d(5), (6, 5)),
            (nn.BatchNorm2d(5, momentum=None), (6, 5, 3, 2)),
            (nn.BatchNorm1d(5, affine=False), (6, 5, 7)),
        ]
    ):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(place), dtype=torch.float64).requires_grad_()
        holder = nn.Sequential(norm).double()
        if rank >= 0:
            norms_across(holder, "cpu")
            assert isinstance(holder[0], AcrossBatchNorm)
        for _ in range(2):
            out = holder(x if rank < 0 else x[rank::WORLD])
        (out**3).sum().backward()
        found |= {f"{place} {key}": value for key, value in norm.state_dict().items()}
        found[f"{place} out"] = out.detach()
        found[f"{place} gradient"] = x.grad if rank < 0 else x.grad[rank::WORLD]
    return found


@pytest.mark.slow
def test_a_norm_across_processes_is_torchs_on_the_whole_batch(parts: Any) -> None:
    whole = _norms(-1)
    for rank, part in enumerate(part["norms"] for part in parts):
        assert set(part) == set(whole)
        for key, value in whole.items():
            rows = value[rank::WORLD] if key.endswith(("out", "gradient")) else value
            torch.testing.assert_close(part[key], rows, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_what_one_process_found_all_know(parts: Any) -> None:
    assert all(part["united"] == dict.fromkeys(("both", "of 0", "of 1"), "why") for part in parts)


def test_one_process_changes_nothing() -> None:
    rows = torch.rand(5, 3)
    assert gathered(rows) is rows
    assert averaged(rows) is rows
    assert united({"a": "b"}) == {"a": "b"}
    torch.manual_seed(0)
    plain, across = nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3))
    norms_across(across, "cpu")
    images = torch.rand(4, 3, 5, 2)
    assert torch.equal(plain(images), across(images))
    assert list(across[0].state_dict()) == list(plain.state_dict())


def test_on_a_gpu_the_norms_are_torchs_own() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    norms_across(module, "cuda")
    assert isinstance(module[1], nn.SyncBatchNorm)


def test_a_norm_with_something_built_in_is_refused() -> None:
    from edgessl.vision import vision_module

    module = nn.Sequential(vision_module("timm.layers").BatchNormAct2d(3))
    with pytest.raises(InputError, match=r"0 is a BatchNormAct2d.*--devices 1"):
        norms_across(module, "cpu")


@pytest.mark.slow
def test_the_command_trains_on_two_devices(tmp_path: Path, frames_folder: Path) -> None:
    command = (sys.executable, "-m", "edgessl.cli.main", "pretrain", str(frames_folder), "--recipe", "mae", "--json")
    options = "--encoder vit_micro --size 16 --steps 3 --batch 8 --accelerator cpu --devices 2 --set encoder.patch=8"
    done = subprocess.run(
        [*command, *options.split(), "-o", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)  # once: the other process says nothing
    assert (facts["steps"], facts["batch"]) == (3, 8)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert read_checkpoint(tmp_path / "out")[0].name == "vit_micro"
