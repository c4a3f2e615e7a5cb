from __future__ import annotations

import pytest

from edgessl.cli.options import engine_settings, parsed_settings, parsed_size
from edgessl.cli.output import table
from edgessl.cli.training import split_settings
from edgessl.errors import InputError
from edgessl.runtimes.engines import LOW_POWER, EngineSettings


@pytest.mark.parametrize(("text", "size"), [("64", (64, 64)), ("48x64", (48, 64)), ("48X64", (48, 64)), ("", None)])
def test_a_size_is_height_by_width(text: str, size: tuple[int, int] | None) -> None:
    assert parsed_size(text) == size


@pytest.mark.parametrize("text", ["big", "64x", "x64", "1x2x3", "-3", "0", "64.5", "\u0666"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match="--size 48x64"):
        parsed_size(text)


def test_settings_are_json_where_they_can_be() -> None:
    settings = ["depth=2", "widths=[8, 12]", "norm=layer", "rate=1e-3", "flag=true", "text=a=b"]
    values = {"depth": 2, "widths": [8, 12], "norm": "layer", "rate": 1e-3, "flag": True, "text": "a=b"}
    assert parsed_settings(settings) == values


@pytest.mark.parametrize("setting", ["depth", "=2", ""])
def test_what_is_no_setting_is_refused(setting: str) -> None:
    with pytest.raises(InputError, match="KEY=VALUE"):
        parsed_settings([setting])


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="'depth' is set twice"):
        parsed_settings(["depth=2", "depth=3"])


def test_settings_of_the_encoder_carry_its_prefix() -> None:
    assert split_settings(["temperature=0.2", "encoder.dim=64"]) == ({"temperature": 0.2}, {"dim": 64})


def test_a_table_aligns_numbers_to_the_right() -> None:
    rows = [{"name": "a", "n": 5}, {"name": "long", "n": 1234}, {"name": "none", "n": None}]
    assert table(rows).splitlines() == ["name     n", "a        5", "long  1234", "none     -"]


def test_a_table_of_nothing_says_so() -> None:
    assert table([]) == "(nothing)"


def test_a_setting_with_a_dot_belongs_to_a_part() -> None:
    assert parsed_settings(["views.flip=0", "views.area=[0.2,1]"]) == {"views": {"flip": 0, "area": [0.2, 1]}}
    with pytest.raises(InputError, match="set in one word and by its parts"):
        parsed_settings(["views=strong", "views.flip=0"])


def test_threads_and_low_power_become_settings_of_the_engine() -> None:
    assert engine_settings(3, low_power=False) == EngineSettings(threads=3)
    assert engine_settings(0, low_power=True) == LOW_POWER
    with pytest.raises(InputError, match="--low-power is one thread, and --threads 2"):
        engine_settings(2, low_power=True)
