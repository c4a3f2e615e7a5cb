"""What is built and installed is what lies in the repository."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import edgessl
from edgessl.cli.failures import EXTRAS
from edgessl.runtimes.engines import ENGINES

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

LINKS = ("cli", "export", "runtimes")


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return dict(tomllib.loads((root / "pyproject.toml").read_text()))


def packages_on_disk(root: Path) -> set[str]:
    found = {
        str(init.parent.relative_to(root)).replace("/", ".")
        for top in ("edgessl", *LINKS)
        for init in (root / top).rglob("__init__.py")
        if not any(parent.is_symlink() for parent in init.parents)
    }
    return {name if name.startswith("edgessl") else f"edgessl.{name}" for name in found}


def test_every_package_is_in_the_wheel(root: Path, project: dict[str, Any]) -> None:
    assert project["tool"]["setuptools"]["packages"] == sorted(packages_on_disk(root))


def test_every_folder_of_modules_is_a_package(root: Path) -> None:
    folders = {
        file.parent
        for top in ("edgessl", *LINKS)
        for file in (root / top).rglob("*.py")
        if "__pycache__" not in file.parts
    }
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("name", LINKS)
def test_a_link_shows_type_checkers_the_root_folder(root: Path, name: str) -> None:
    assert (root / "edgessl" / name).readlink() == Path("..") / name


def test_the_version_stands_in_one_place(project: dict[str, Any]) -> None:
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "edgessl.__version__"}
    assert version("edgessl") == edgessl.__version__


def test_the_device_needs_no_training_package(project: dict[str, Any]) -> None:
    names = {re.split(r"[<>=!\[ ]", line)[0] for line in project["project"]["dependencies"]}
    assert names == {"numpy", "onnxruntime", "pillow", "rich", "safetensors", "typer"}


def test_every_direct_dependency_is_pinned(root: Path, project: dict[str, Any]) -> None:
    pinned = dict(
        line.split("==") for line in (root / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )
    lines = project["project"]["dependencies"] + [
        line for lines in project["project"]["optional-dependencies"].values() for line in lines
    ]
    direct = {re.split(r"[<>=!\[ ]", line)[0] for line in lines} - {"edgessl"}
    assert direct - set(pinned) == set()
    assert pinned["torch"] == "2.13.0"  # without +cpu: pip takes the build that the index has


def test_every_extra_that_a_message_names_exists(root: Path, project: dict[str, Any]) -> None:
    named = set(EXTRAS.values()) | {extra for *_, extra in ENGINES.values() if extra}
    for file in [*(root / "edgessl").rglob("*.py")]:
        named |= set(re.findall(r'MissingExtraError\(.*, "(\w+)"\)', file.read_text()))
    assert named >= {"train", "export"}
    assert named - set(project["project"]["optional-dependencies"]) == set()


def test_the_licence_is_apache_2(root: Path, project: dict[str, Any]) -> None:
    text = (root / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert project["project"]["license"] == "Apache-2.0"
