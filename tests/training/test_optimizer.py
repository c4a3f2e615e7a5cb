"""What AdamW is given: which weights decay, and which learn at another rate."""

from __future__ import annotations

import pytest
import torch

from edgessl.encoders import build_encoder
from edgessl.errors import InputError
from edgessl.loop import Plan, TrainingModule
from edgessl.recipes import build_recipe
from edgessl.signals import image_spec

PLAN = Plan(steps=10, batch=4, lr=1e-3, weight_decay=0.1, warmup=0, seed=0, save_every=10, precision="32-true")


def test_weights_decay_biases_and_norms_do_not_and_a_predictor_runs_ahead() -> None:
    recipe = build_recipe("simsiam", build_encoder("conv_small", image_spec(32, 32)), haste=4.0)
    optimizer = TrainingModule(recipe, PLAN, log_every=1).configure_optimizers()["optimizer"]
    of = {id(weight): group for group in optimizer.param_groups for weight in group["params"]}
    assert len(of) == sum(len(group["params"]) for group in optimizer.param_groups)  # none twice
    for name, weight in recipe.named_parameters():
        group = of[id(weight)]
        assert group["initial_lr"] == pytest.approx(4e-3 if name.startswith("predict.") else 1e-3), name
        assert group["weight_decay"] == (0.1 if weight.ndim > 1 else 0.0), name


def test_what_stands_still_is_not_given() -> None:
    recipe = build_recipe("byol", build_encoder("conv_small", image_spec(32, 32)))
    optimizer = TrainingModule(recipe, PLAN, log_every=1).configure_optimizers()["optimizer"]
    given = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    assert not given & {id(weight) for weight in recipe.teacher.parameters()}
    assert given == {id(weight) for weight in recipe.parameters() if weight.requires_grad}


def test_the_rate_falls_for_both_alike() -> None:
    recipe = build_recipe("simsiam", build_encoder("conv_small", image_spec(32, 32)))
    both = TrainingModule(recipe, PLAN, log_every=1).configure_optimizers()
    optimizer, schedule = both["optimizer"], both["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(10):
        optimizer.step()
        schedule.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    told = torch.tensor(rates)
    torch.testing.assert_close(told / told[0], (told[:, :1] / told[0, :1]).expand_as(told))


def test_a_haste_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="haste is a factor, more than 0, not 0"):
        build_recipe("simsiam", build_encoder("conv_small", image_spec(32, 32)), haste=0)
