"""What every recipe promises; a line in `RECIPES` is enough to be tested here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from typer.testing import CliRunner

from edgessl.cli.main import app
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import InputError, UnknownNameError
from edgessl.recipes import ANY, RECIPES, Recipe, Terms, Views, build_recipe, recipe_class
from edgessl.recipes.mae import MAE
from edgessl.signals import image_spec, series_spec
from edgessl.trainstate import read_state, write_state

SIZE = (16, 24)  # not square, so that a swapped axis shows
SMALL = {  # settings that make the encoders of the table small
    "conv_small": {"widths": (8, 12, 16), "dim": 16},
    "vit_micro": {"dim": 16, "depth": 2, "heads": 2, "patch": 4},
    "conv_series": {"widths": (8, 12, 16), "dim": 16},
    "tcn_small": {"width": 8, "depth": 2, "dim": 16},
    "vit_series": {"dim": 16, "depth": 2, "heads": 2, "patch": 4},
}
TEACHERS = ("bootleg", "byol", "dino", "ijepa", "moco", "moco_v3")
CASES = [
    (name, encoder)
    for name, entry in sorted(RECIPES.items())
    for encoder in entry.encoder  # one per kind of samples
]


def _encoder(encoder: str) -> EncoderModule:
    torch.manual_seed(0)
    spec = series_spec(3, 40) if "series" in encoder or encoder.startswith("tcn") else image_spec(*SIZE)
    return build_encoder(encoder, spec, **SMALL[encoder])


#: the tests give the same views at every step: a longer queue fills with a sample's own keys
OPTIONS = {"moco": {"queue": 12}}


def _recipe(case: tuple[str, str]) -> Recipe:
    return build_recipe(case[0], _encoder(case[1]), **OPTIONS.get(case[0], {}))


def _samples(recipe: Recipe, batch: int = 12) -> Tensor:
    """Coarse random patterns, which bear cropping."""
    generator = torch.Generator().manual_seed(3)
    if recipe.encoder.input.kind == "image":
        return functional.interpolate(torch.rand(batch, 3, 4, 6, generator=generator), SIZE, mode="bilinear")
    return functional.interpolate(torch.randn(batch, 3, 10, generator=generator), 40, mode="linear")


def _terms(recipe: Recipe, seed: int) -> Terms:
    terms: Terms = recipe(recipe.views(_samples(recipe), torch.Generator().manual_seed(seed)))
    return terms


class _Training:
    """Steps as the trainer takes them: what is random comes from the step's number."""

    def __init__(self, case: tuple[str, str]) -> None:
        self.recipe = _recipe(case)
        trained = [weight for weight in self.recipe.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3)

    def steps(self, first: int, last: int) -> list[dict[str, float]]:
        """The loss terms of steps `first` to `last - 1` of 4."""
        losses = []
        for step in range(first, last):
            torch.manual_seed(step)
            terms = _terms(self.recipe, step)
            self.optimizer.zero_grad()
            torch.autograd.backward(list(terms.values()))
            self.optimizer.step()
            self.recipe.after_step(step, 4)
            losses.append({name: term.item() for name, term in terms.items()})
        return losses


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    return (str(request.param[0]), str(request.param[1]))


def test_terms_are_named_finite_scalars(case: tuple[str, str]) -> None:
    terms = _terms(_recipe(case), 1)
    assert terms
    assert all(term.shape == () and torch.isfinite(term) for term in terms.values())


def test_the_same_seed_gives_the_same_losses(case: tuple[str, str]) -> None:
    first, again, other = (_terms(_recipe(case), seed) for seed in (1, 1, 2))
    assert {key: term.item() for key, term in first.items()} == {key: term.item() for key, term in again.items()}
    assert any(first[key].item() != other[key].item() for key in first)


def test_views_have_the_shape_and_the_range_of_the_samples(case: tuple[str, str]) -> None:
    recipe = _recipe(case)
    samples = _samples(recipe)
    batch = recipe.views(samples, torch.Generator().manual_seed(0))
    for view in batch.views:
        assert view.shape == samples.shape
        assert torch.isfinite(view).all()
        if recipe.encoder.input.kind == "image":
            assert 0 <= view.min() <= view.max() <= 1
    assert not torch.equal(batch.views[0], samples)


def test_held_against_what_belongs_to_others_the_loss_is_another(case: tuple[str, str]) -> None:
    recipe = _recipe(case)
    batch = recipe.views(_samples(recipe), torch.Generator().manual_seed(0))
    # Each time a fresh recipe: a queue or a centre that has moved would change the loss by itself.
    paired, again, unpaired = (
        {key: term.item() for key, term in _recipe(case)(views).items()} for views in (batch, batch, batch.unpaired())
    )
    assert paired == again != unpaired


def test_a_gradient_reaches_every_part_of_the_encoder_that_features_use(case: tuple[str, str]) -> None:
    recipe = _recipe(case)
    torch.autograd.backward(list(_terms(recipe, 1).values()))
    reached = {key for key, weight in recipe.encoder.stages.named_parameters() if weight.grad is not None}
    assert reached == {key for key, _ in recipe.encoder.stages.named_parameters()}
    assert all(torch.isfinite(weight.grad).all() for weight in recipe.parameters() if weight.grad is not None)


@pytest.mark.parametrize("case", [case for case in CASES if case[0] in TEACHERS], ids="-".join)
def test_the_loss_is_held_against_a_teacher_that_gets_no_gradient(case: tuple[str, str]) -> None:
    same, other = _recipe(case), _recipe(case)
    teacher = other.get_submodule("teacher")
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    first, second = _terms(same, 1), _terms(other, 1)
    assert all(first[key].item() != second[key].item() for key in first)
    torch.autograd.backward(list(second.values()))
    assert all(weight.grad is None for weight in teacher.parameters())


def test_few_and_odd_samples_of_one_channel_are_enough(case: tuple[str, str]) -> None:
    torch.manual_seed(0)
    spec = image_spec(*SIZE) if _recipe(case).encoder.input.kind == "image" else series_spec(1, 40)
    for batch in (2, 3):
        recipe = build_recipe(case[0], build_encoder(case[1], spec, **SMALL[case[1]]))
        samples = _samples(recipe, batch)[:, : 3 if spec.kind == "image" else 1]
        terms = list(recipe(recipe.views(samples, torch.Generator().manual_seed(1))).values())
        torch.autograd.backward(terms)
        assert all(torch.isfinite(term) for term in terms)
        assert all(torch.isfinite(weight.grad).all() for weight in recipe.parameters() if weight.grad is not None)


@pytest.mark.parametrize("encoder", ["vit_micro", "vit_series"])
@pytest.mark.parametrize("name", [name for name, entry in RECIPES.items() if entry.kinds == ANY])
def test_what_learns_from_all_kinds_trains_transformers_too(name: str, encoder: str) -> None:
    recipe = _recipe((name, encoder))
    terms = _terms(recipe, 1)
    torch.autograd.backward(list(terms.values()))
    assert all(torch.isfinite(term) for term in terms.values())
    assert all(weight.grad is not None for weight in recipe.encoder.stages.parameters() if weight.requires_grad)


@pytest.mark.parametrize("batch", [2, 3, 12])
def test_unpaired_views_and_labels_are_never_a_samples_own(batch: int) -> None:
    own = torch.arange(batch)
    moved = Views((own, own, own), labels=own).unpaired()
    assert moved.labels is not None
    assert torch.equal(moved.views[0], own)
    assert all((each != own).all() for each in (*moved.views[1:], moved.labels))


def test_the_loss_falls(case: tuple[str, str]) -> None:
    recipe = _recipe(case)
    optimizer = torch.optim.AdamW([weight for weight in recipe.parameters() if weight.requires_grad], lr=3e-3)
    losses = []
    for step in range(20):
        terms = list(_terms(recipe, 5).values())  # the same views at every step
        optimizer.zero_grad()
        torch.autograd.backward(terms)
        optimizer.step()
        recipe.after_step(step, 20)
        losses.append(sum(term.item() for term in terms))
    # Of the first two: a queue begins with directions at random, which nothing is like.
    assert sum(losses[-4:]) / 4 < 0.95 * max(losses[:2])


def test_a_recipe_trains_the_encoder_it_was_given(case: tuple[str, str]) -> None:
    encoder = _encoder(case[1])
    assert build_recipe(case[0], encoder).encoder is encoder


def test_a_state_dict_restores_the_losses(case: tuple[str, str]) -> None:
    recipe, other = _recipe(case), _recipe(case)
    with torch.no_grad():
        for weight in recipe.parameters():
            weight.mul_(1.1)
    other.load_state_dict(recipe.state_dict())
    assert {k: v.item() for k, v in _terms(recipe, 1).items()} == {k: v.item() for k, v in _terms(other, 1).items()}


def test_going_on_from_a_state_on_disk_equals_no_stop_to_the_bit(case: tuple[str, str], tmp_path: Path) -> None:
    whole, stopped, resumed = (_Training(case) for _ in range(3))
    losses = whole.steps(0, 4)
    assert stopped.steps(0, 2) == losses[:2]
    write_state(
        tmp_path / "state", {"recipe": stopped.recipe.state_dict(), "optimizer": stopped.optimizer.state_dict()}
    )
    with torch.no_grad():
        for value in (*resumed.recipe.parameters(), *resumed.recipe.buffers()):
            value.zero_()  # nothing of it is there by itself
    state = read_state(tmp_path / "state")
    resumed.recipe.load_state_dict(state["recipe"])
    resumed.optimizer.load_state_dict(state["optimizer"])
    assert resumed.steps(2, 4) == losses[2:]
    for name, value in whole.recipe.state_dict().items():
        assert torch.equal(value, resumed.recipe.state_dict()[name]), name


def test_a_config_is_frozen_and_refuses_unknown_settings(case: tuple[str, str]) -> None:
    recipe = _recipe(case)
    config = recipe.config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, dataclasses.fields(config)[0].name, 1)
    with pytest.raises(UnknownNameError, match="setting of recipe"):
        build_recipe(case[0], _encoder(case[1]), no_such_setting=1)


def test_defaults_are_numbers_that_an_optimizer_takes(case: tuple[str, str]) -> None:
    defaults = _recipe(case).defaults
    assert 0 < defaults.lr < 1
    assert 0 <= defaults.weight_decay < 1
    assert defaults.batch >= 2


def test_it_works_under_mixed_precision(case: tuple[str, str]) -> None:
    exact, recipe = _terms(_recipe(case), 1), _recipe(case)
    views = recipe.views(_samples(recipe), torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        terms = recipe(views)
    torch.autograd.backward(list(terms.values()))
    assert {key: term.item() for key, term in terms.items()} == pytest.approx(
        {key: term.item() for key, term in exact.items()}, rel=0.03, abs=0.003
    )
    assert all(torch.isfinite(weight.grad).all() for weight in recipe.parameters() if weight.grad is not None)


@pytest.mark.parametrize("name", [name for name, entry in RECIPES.items() if len(entry.kinds) < len(ANY)])
def test_samples_of_another_kind_are_refused(name: str) -> None:
    entry = RECIPES[name]
    encoder = _encoder("conv_series" if "image" in entry.kinds else "conv_small")
    with pytest.raises(InputError, match=f"learns from {' and '.join(entry.kinds)} samples"):
        build_recipe(name, encoder)


def test_a_setting_of_views_can_be_changed_alone() -> None:
    recipe = build_recipe("mae", _encoder("vit_micro"), views={"flip": 0, "area": [0.5, 1.0]})
    assert recipe.settings.views == dataclasses.replace(MAE.usual_views["image"], flip=0, area=(0.5, 1.0))
    with pytest.raises(UnknownNameError, match="setting of views of recipe 'mae', 'flap'; did you mean 'flip'"):
        build_recipe("mae", _encoder("vit_micro"), views={"flap": 0})
    with pytest.raises(InputError, match=r"type --set views\.area=VALUE"):
        build_recipe("mae", _encoder("vit_micro"), views="strong")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_one_of_the_listed_and_says_where_it_comes_from(name: str) -> None:
    listed = CliRunner().invoke(app, ["recipes", "--json"]).stdout
    row = next(row for row in json.loads(listed)["recipes"] if row["recipe"] == name)
    assert row["what it is"] == RECIPES[name].about
    assert row["learns from"].split(", ") == list(RECIPES[name].kinds)
    assert recipe_class(name).__doc__


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"no recipe 'simclear'; did you mean 'simclr'"):
        build_recipe("simclear", _encoder("conv_small"))


@pytest.mark.parametrize(
    ("recipe", "option", "value"),
    [
        ("simclr", "temperature", 0.0),
        ("vicreg", "variance", -1.0),
        ("byol", "momentum", 1.5),
        ("mae", "hidden", 1.0),
        ("mae", "width", 30),
        ("mae", "heads", 0),
        ("simclr", "out", -1),
        ("dino", "hidden", -1),
    ],
)
def test_a_setting_out_of_range_is_named(recipe: str, option: str, value: float) -> None:
    with pytest.raises(InputError, match=option):
        build_recipe(recipe, _encoder(RECIPES[recipe].encoder[0]), **{option: value})
