"""One table for the command line, the environment and ROS."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from edgessl.bundle import PRECISIONS
from edgessl.errors import InputError
from edgessl.runtimes.adapt.config import LEVELS as LEARNER_LEVELS
from edgessl.runtimes.robot import parameters as table
from edgessl.runtimes.robot.parameters import TABLE, Parameters, from_environment, parameters_from


def test_every_field_has_a_row_and_every_row_a_field() -> None:
    assert [entry.name for entry in TABLE] == [field.name for field in fields(Parameters)]


def test_the_words_are_those_of_the_bundle_and_the_learner() -> None:
    assert set(table.PRECISIONS) == {"auto", *PRECISIONS}
    assert {*table.LEVELS.values()} == {"auto", "none", *LEARNER_LEVELS}


def test_the_command_line_counts_before_the_environment_and_that_before_ros() -> None:
    typed, environment, ros = (
        {"threads": "2"},
        {"EDGESSL_THREADS": "3", "EDGESSL_BUNDLE": "b"},
        {"threads": 4, "rate": 7},
    )
    found = parameters_from(typed, from_environment(environment), ros)
    assert (found.threads, found.bundle, found.rate) == (2, Path("b"), 7.0)


def test_text_and_values_of_ros_read_alike() -> None:
    text = {"bundle": "b", "threads": "2", "low_power": "true", "rate": "4.5", "metrics": "9400", "level": "1"}
    ros = {"bundle": "b", "threads": 2, "low_power": True, "rate": 4.5, "metrics": 9400, "level": 1}
    assert parameters_from(text) == parameters_from(ros)
    assert parameters_from(text).level == "ports"


def test_what_is_empty_was_not_given() -> None:
    assert parameters_from({"bundle": "b", "metrics": "", "threads": None}) == Parameters(bundle=Path("b"))


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("9400", ("127.0.0.1", 9400)),
        ("0.0.0.0:9400", ("0.0.0.0", 9400)),
        ("[::1]:9400", ("::1", 9400)),
        ("robot.local:0", ("robot.local", 0)),
    ],
)
def test_a_port_alone_is_on_loopback(given: str, address: tuple[str, int]) -> None:
    assert parameters_from({"bundle": "b", "metrics": given}).metrics == address


@pytest.mark.parametrize(
    "wrong",
    [
        {"threads": "-1"},
        {"threads": "two"},
        {"rate": "nan"},
        {"rate": "-3"},
        {"max_age": "inf"},
        {"low_power": "perhaps"},
        {"precision": "fp8"},
        {"level": "3"},
        {"metrics": ":9400"},
        {"metrics": "host"},
        {"metrics": "70000"},
        {"rerun_every": "0"},
        {"log": "loud"},
    ],
)
def test_a_value_that_cannot_be_is_named(wrong: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        parameters_from({"bundle": "b"} | wrong)
    (name, value), *_ = wrong.items()
    assert name.split("_")[0] in str(caught.value)
    assert value in str(caught.value)


def test_without_a_bundle_it_says_where_to_name_one() -> None:
    with pytest.raises(InputError, match="EDGESSL_BUNDLE"):
        parameters_from({})


def test_nothing_is_learned_without_a_state_or_with_level_none() -> None:
    assert parameters_from({"bundle": "b", "state": "s"}).learns
    assert not parameters_from({"bundle": "b"}).learns
    assert not parameters_from({"bundle": "b", "state": "s", "level": "none"}).learns
