"""What the documents say is there is there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from edgessl.cli.main import GROUPS, app

MAPPED = ("edgessl", "export", "runtimes", "cli", "benchmarks")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/robot.md")


def modules(root: Path) -> set[str]:
    """Every Python file of the project but the tests; an empty `__init__.py` says nothing and needs no line."""
    return {
        str(file.relative_to(root))
        for top in MAPPED
        for file in (root / top).rglob("*.py")
        if not any(parent.is_symlink() for parent in file.parents) and file.read_text().strip()
    }


def commands(text: str) -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line.startswith("edgessl ")]


def test_the_code_map_names_every_module_once(root: Path) -> None:
    named = re.findall(r"^    (\S+\.py)  +\S", (root / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(modules(root))


def test_every_command_in_the_readme_parses(root: Path) -> None:
    found = commands((root / "README.md").read_text())
    assert len(found) >= 6
    group: Any = typer.main.get_command(app)
    for _, name, *words in found:
        command = group.commands[name]
        if name in GROUPS:
            command, words = command.commands[words[0]], words[1:]
        command.make_context(name, words)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_a_document_names_exists(root: Path, document: str) -> None:
    text = (root / document).read_text()
    paths = set(re.findall(r"`((?:edgessl|export|runtimes|cli|tests|benchmarks|docs)/[\w/.]+)`", text))
    paths |= {str(Path(document).parent / link) for link in re.findall(r"\]\((?!http)([^)#]+)\)", text)}
    missing = [path for path in paths if not (root / path).exists()]
    assert [path for path in missing if "NAME" not in path] == []


def test_the_makefile_has_its_targets(root: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (root / "Makefile").read_text(), re.MULTILINE))
    assert {"install", "demo", "test", "lint", "types", "bench"} <= targets


def test_no_file_names_a_place_on_somebodys_machine(root: Path) -> None:
    done = subprocess.run(
        ["git", "grep", "-nIE", r"(^|[^\w.])/(work|home|root|Users)/\w", "--", ".", ":!LICENSE"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode > 1:
        pytest.skip("this is no git checkout")
    assert done.stdout.splitlines() == []


def test_ci_runs_the_tests(root: Path) -> None:
    script = root / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()


def test_files_stay_short_enough_to_read(root: Path) -> None:
    long = {name: (root / name).read_text().count("\n") for name in modules(root)}
    assert {name: lines for name, lines in long.items() if lines > 300} == {}
