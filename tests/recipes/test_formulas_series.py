"""Recipes for series against the papers' formulas in numpy, from the outputs of the recipe's own parts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edgessl.blocks.series_latents import step_count, step_features, to_time
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import InputError
from edgessl.recipes import Masks, Recipe, Views, build_recipe
from edgessl.recipes.biopm import BioPM
from edgessl.recipes.cpc import CPC
from edgessl.recipes.masked_series import MaskedSeries
from edgessl.recipes.ts2vec import TS2Vec
from edgessl.recipes.ts_tcc import TSTCC
from edgessl.recipes.unimotion import UniMotion
from edgessl.signals import series_spec

Array = NDArray[np.float64]
SMALL: dict[str, dict[str, Any]] = {
    "conv_series": {"widths": (6, 8), "dim": 10},
    "tcn_small": {"width": 6, "depth": 2, "dim": 10},
    "vit_series": {"dim": 12, "depth": 2, "heads": 2, "patch": 4},
}


def _encoder(name: str = "conv_series", time: int = 28) -> EncoderModule:
    torch.manual_seed(0)
    return build_encoder(name, series_spec(3, time), **SMALL[name])


def _series(batch: int = 5, time: int = 28, seed: int = 1) -> Tensor:
    return torch.randn(batch, 3, time, generator=torch.Generator().manual_seed(seed))


def _generator(seed: int = 2) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def _places(past: range, future: range, batch: int = 5) -> Masks:
    keep, hide = (torch.tensor(list(each)).expand(batch, -1) for each in (past, future))
    return Masks(keep=keep, hide=hide)


def _contrast(z_1: Array, z_2: Array) -> float:
    """Eq. 1 of TS2Vec's paper, of one group: rows `(rows, dim)`, both directions."""
    z, n, total = np.concatenate([z_1, z_2]), len(z_1), 0.0
    for i in range(2 * n):
        others = sum(math.exp(z[i] @ z[k]) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(z[i] @ z[(i + n) % (2 * n)]) / others)
    return total / (2 * n)


def test_ts2vec_is_algorithm_1_of_its_paper() -> None:
    recipe = build_recipe("ts2vec", _encoder())
    assert isinstance(recipe, TS2Vec)
    batch = Views((_series(), _series(seed=4)), _places(range(1, 6), range(0)))
    terms = recipe(batch)
    z_1, z_2 = (_array(each) for each in step_features(recipe.encoder, torch.cat(batch.views))[:, 1:6].chunk(2))
    instance, temporal, scales = 0.0, 0.0, 0
    while True:
        scales += 1
        instance += np.mean([_contrast(z_1[:, t], z_2[:, t]) for t in range(z_1.shape[1])])
        if z_1.shape[1] == 1:
            break
        temporal += np.mean([_contrast(a, b) for a, b in zip(z_1, z_2, strict=True)])
        half = z_1.shape[1] // 2
        z_1, z_2 = (z[:, : 2 * half].reshape(5, half, 2, -1).max(2) for z in (z_1, z_2))
    assert scales == 3  # 5, 2 and 1 steps
    assert terms["instance"].item() == pytest.approx(0.5 * instance / scales, rel=1e-4)
    assert terms["temporal"].item() == pytest.approx(0.5 * temporal / scales, rel=1e-4)


def test_both_crops_of_ts2vec_show_the_shared_steps_and_nothing_else_of_each_other() -> None:
    recipe, series = build_recipe("ts2vec", _encoder(), hidden=0.0), _series()
    own_parts = 0
    for seed in range(30):
        batch = recipe.views(series, _generator(seed))
        assert batch.masks is not None
        shown = [(view == series).all(1).all(0) for view in batch.views]
        both = torch.zeros(7, dtype=torch.bool)
        both[batch.masks.keep[0]] = True
        assert torch.equal(shown[0] & shown[1], to_time(both, 28))
        at = to_time(both, 28).nonzero().flatten()
        assert not shown[0][at[-1] + 1 :].any()  # the first crop ends where the shared steps end,
        assert not shown[1][: at[0]].any()  # the second begins where they begin
        own_parts += int((shown[0] ^ shown[1]).any())
    assert own_parts > 15


def test_cpc_is_eq_4_of_its_paper() -> None:
    recipe = build_recipe("cpc", _encoder(), ahead=3, context=9)
    assert isinstance(recipe, CPC)
    batch = Views((_series(), _series(seed=4)), _places(range(4), range(4, 6)))  # two steps of three are left
    loss = recipe(batch)["infonce"].item()
    past, future = step_features(recipe.encoder, torch.cat(batch.views)).chunk(2)
    c = recipe.context(past[:, :4])[1][0]  # the last state
    guesses = _array(recipe.predict(c)).reshape(5, 3, 10)
    z = _array(future)[:, 4:6]
    total = 0.0
    for window in range(5):
        for k in range(2):
            f = [math.exp(each @ guesses[window, k]) for each in z.reshape(-1, 10)]
            total -= math.log(math.exp(z[window, k] @ guesses[window, k]) / sum(f))
    assert loss == pytest.approx(total / 10, rel=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_the_past_of_cpc_does_not_know_the_future(name: str) -> None:
    views = {"span": (1, 1), "scale": (1, 1), "drop": 0, "noise": 0}
    recipe, series = build_recipe("cpc", _encoder(name), views=views), _series()
    first = recipe.views(series, _generator())
    assert first.masks is not None
    start = int(first.masks.hide[0, 0]) * 28 // step_count(recipe.encoder)
    other = series.clone()
    other[0, :, start:] += 3  # of two windows, so that the batch's mean, which stands for what is hidden, stays
    other[1, :, start:] -= 3
    second = recipe.views(other, _generator())
    torch.testing.assert_close(first.views[0], second.views[0])
    assert not torch.allclose(first.views[1], second.views[1])
    torch.testing.assert_close(first.views[0][:, :, :start], series[:, :, :start])
    torch.testing.assert_close(first.views[1][:, :, start:], series[:, :, start:])


def test_ts_tcc_is_eq_1_to_3_of_its_paper() -> None:
    recipe = build_recipe("ts_tcc", _encoder(), width=8, depth=1, out=6, temporal=2.0, contextual=0.5, temperature=0.3)
    assert isinstance(recipe, TSTCC)
    batch = Views((_series(), _series(seed=4)), _places(range(3), range(3, 5)))
    terms = recipe(batch)
    z = functional.normalize(step_features(recipe.encoder, torch.cat(batch.views)), dim=2)
    tokens = torch.cat([recipe.token.expand(10, -1, -1), recipe.narrow(z[:, :3])], 1)
    c = recipe.blocks(tokens)[:, 0]
    guesses, told = _array(recipe.predict(c)).reshape(10, 2, 10), _array(z)[:, 3:5]
    temporal = 0.0
    for views in (range(5), range(5, 10)):
        others = [(view + 5) % 10 for view in views]
        for view in views:
            for k in range(2):
                own = math.exp(guesses[view, k] @ told[(view + 5) % 10, k])
                temporal -= math.log(own / sum(math.exp(guesses[view, k] @ told[each, k]) for each in others)) / 10
    assert terms["temporal"].item() == pytest.approx(2.0 * temporal, rel=1e-4)
    h = _array(recipe.head(c))
    h /= np.linalg.norm(h, axis=1, keepdims=True)
    contextual = 0.0
    for i in range(10):
        others_ = sum(math.exp(h[i] @ h[k] / 0.3) for k in range(10) if k != i)
        contextual -= math.log(math.exp(h[i] @ h[(i + 5) % 10] / 0.3) / others_) / 10
    assert terms["contextual"].item() == pytest.approx(0.5 * contextual, rel=1e-3)


def _painted(recipe: Recipe, batch: Views) -> Array:
    assert isinstance(recipe, MaskedSeries | BioPM | UniMotion)
    return _array(recipe.painter(step_features(recipe.encoder, batch.views[0])))


def _where(batch: Views) -> NDArray[np.bool_]:
    assert batch.labels is not None
    return np.asarray(batch.labels.expand_as(batch.views[0]).numpy())


@pytest.mark.parametrize("name", SMALL)
def test_masked_series_is_the_squared_error_of_hidden_patches(name: str) -> None:
    recipe = build_recipe("masked_series", _encoder(name), hidden=0.4)
    batch = recipe.views(_series(), _generator())
    loss = recipe(batch)["patches"].item()
    where, whole = _where(batch), _array(batch.views[1])
    hidden_steps = np.unique(where.sum(2))
    steps = step_count(recipe.encoder)
    assert hidden_steps.tolist() == [(steps - round(0.6 * steps)) * 28 // steps]
    assert (_array(batch.views[0])[~where] == whole[~where]).all()
    target = (whole - whole.mean((0, 2), keepdims=True)) / whole.std((0, 2), keepdims=True)
    error = (_painted(recipe, batch) - target)[where] ** 2
    assert loss == pytest.approx(error.mean(), rel=1e-4)


def test_biopm_weighs_absolute_errors_of_the_movement() -> None:
    recipe = build_recipe("biopm", _encoder(), masked=10.0, seen=0.5, bins=5)
    batch = recipe.views(_series(), _generator())
    terms = recipe(batch)
    whole, where = _array(batch.views[1]), _where(batch)
    body = (whole - whole.mean(2, keepdims=True)) / whole.std((0, 2), keepdims=True)  # the rate is not known here
    error = abs(_painted(recipe, batch) - body)
    assert terms["masked"].item() == pytest.approx(10 * error[where].mean(), rel=1e-4)
    assert terms["seen"].item() == pytest.approx(0.5 * error[~where].mean(), rel=1e-4)


def test_what_biopm_hides_keeps_its_posture_and_says_nothing_of_the_movement() -> None:
    encoder = _encoder()
    encoder.input = replace(encoder.input, rate_hz=20.0)
    recipe = build_recipe("biopm", encoder, views={"span": (1, 1)}, band_hz=(1.0, 8.0))
    series = _series() + torch.tensor([9.81, 0.0, -3.0]).view(1, 3, 1)
    batch = recipe.views(series, _generator())
    where, seen = _where(batch), _array(batch.views[0])
    spectrum = np.fft.rfft(_array(batch.views[1]))
    spectrum[..., np.fft.rfftfreq(28, 1 / 20) >= 1.0] = 0
    np.testing.assert_allclose(seen[where], np.fft.irfft(spectrum, 28)[where], atol=1e-4)
    assert 0.15 < where.mean() < 0.85
    assert (where.any(2) & ~where.all(2)).all()


def test_unimotion_hides_in_proportion_to_the_energy_of_the_jerk() -> None:
    recipe = build_recipe("unimotion", _encoder(time=16), hidden=0.25, views={"span": (1, 1)})  # one of four patches
    loud = torch.ones(4000, 3, 16)
    loud[:, :, 4:8], loud[:, :, 12:] = 2.0, 2**0.5
    series = (loud * torch.tensor([-1.0, 1.0]).repeat(8)).contiguous()
    batch = recipe.views(series, _generator())
    drawn = _where(batch)[:, 0, ::4].mean(0)
    jerk = np.append(np.diff(_array(series[0, 0])) ** 2, np.nan).reshape(4, 4)
    energy = np.nanmean(jerk, 1)
    np.testing.assert_allclose(drawn, energy / energy.sum(), atol=0.025)


def test_unimotion_is_the_squared_error_of_hidden_patches() -> None:
    recipe = build_recipe("unimotion", _encoder("vit_series"))
    batch = recipe.views(_series(), _generator())
    whole, where = _array(batch.views[1]), _where(batch)
    target = (whole - whole.mean((0, 2), keepdims=True)) / whole.std((0, 2), keepdims=True)
    error = (_painted(recipe, batch) - target)[where] ** 2
    assert recipe(batch)["nucleus"].item() == pytest.approx(error.mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("recipe", "option", "value"),
    [
        ("ts2vec", "hidden", 1.5),
        ("ts2vec", "instance", -0.1),
        ("ts_tcc", "future", 1.0),
        ("ts_tcc", "temperature", 0.0),
        ("ts_tcc", "width", 30),
        ("ts_tcc", "contextual", -1.0),
        ("biopm", "seen", -1.0),
        ("cpc", "ahead", 0),
        ("masked_series", "hidden", 0.0),
        ("biopm", "bins", 1),
        ("biopm", "hidden", (0.5, 0.2)),
        ("biopm", "band_hz", (12.0, 0.5)),
        ("unimotion", "hidden", 1.0),
    ],
)
def test_a_setting_out_of_range_is_named(recipe: str, option: str, value: Any) -> None:
    with pytest.raises(InputError, match=option):
        build_recipe(recipe, _encoder(), **{option: value})


@pytest.mark.parametrize("recipe", ["cpc", "ts2vec", "ts_tcc", "masked_series", "unimotion"])
def test_an_encoder_with_one_step_per_window_is_refused(recipe: str) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("conv_series", series_spec(3, 8), widths=(4, 4, 4), dim=5)
    with pytest.raises(
        InputError, match=f"{recipe!r} tells latent steps apart, and encoder 'conv_series' gives 1 per window of 8"
    ):
        build_recipe(recipe, encoder)


@pytest.mark.parametrize("recipe", ["cpc", "ts2vec", "ts_tcc", "masked_series", "biopm", "unimotion"])
def test_views_of_another_recipe_are_refused(recipe: str) -> None:
    with pytest.raises(InputError, match="make them with the recipe's own `views`"):
        build_recipe(recipe, _encoder())(Views((_series(), _series())))
