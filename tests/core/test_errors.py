from __future__ import annotations

from pathlib import Path

import pytest

from edgessl import errors
from edgessl.errors import EdgeSSLError, MissingExtraError, OutputExistsError, UnknownNameError


def kinds() -> list[type[EdgeSSLError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EdgeSSLError)]


def test_every_error_is_drawn_in_the_tree() -> None:
    assert len(kinds()) > 10
    assert [kind.__name__ for kind in kinds() if kind.__name__ not in str(errors.__doc__)] == []


def test_exit_codes_are_those_that_the_tree_says() -> None:
    codes = {kind.__name__: kind.exit_code for kind in kinds()}
    assert {name for name, code in codes.items() if code == 4} == {
        "IntegrityError",
        "BundleError",
        "CheckpointError",
        "StateError",
    }
    assert [name for name, code in codes.items() if code == 3] == ["GateError", "CollapseError"]
    assert [name for name, code in codes.items() if code == 130] == ["Interrupted"]


def test_an_unknown_name_shows_the_table_and_the_nearest() -> None:
    error = UnknownNameError("recipe", "simcrl", ["vicreg", "simclr"])
    assert str(error) == "no recipe 'simcrl'; did you mean 'simclr'? Choose one of: simclr, vicreg"
    assert error.nearest == "simclr"


def test_a_far_name_has_no_nearest() -> None:
    error = UnknownNameError("recipe", "zzz", ["vicreg", "simclr"])
    assert error.nearest is None
    assert "did you mean" not in str(error)
    assert str(error) == "no recipe 'zzz'. Choose one of: simclr, vicreg"


def test_a_long_table_is_cut_and_says_by_how_much() -> None:
    error = UnknownNameError("encoder", "zzz", [f"name{index:02d}" for index in range(25)])
    assert "name19, ... 5 more" in str(error)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MissingExtraError("torch", "train"), "pip install 'edgessl[train]'"),
        (OutputExistsError(Path("runs/a")), "--overwrite"),
    ],
)
def test_the_message_says_what_to_type(error: EdgeSSLError, line: str) -> None:
    assert line in str(error)
