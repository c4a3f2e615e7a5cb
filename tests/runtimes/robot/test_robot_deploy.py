"""The unit and the container file say what docs/robot.md promises of them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from edgessl.cli.main import app
from edgessl.runtimes.robot.parameters import TABLE

#: variables of the nodes that are no row of the table
OWN = {"EDGESSL_SOURCE", "EDGESSL_CONNECT", "EDGESSL_LISTEN", "EDGESSL_KEY"}


@pytest.fixture
def page(root) -> str:
    return (root / "docs" / "robot.md").read_text()


@pytest.fixture
def unit(root) -> Path:
    return root / "deploy" / "edgessl-node.service"


@pytest.fixture
def container(root) -> str:
    return (root / "deploy" / "Containerfile.jetson").read_text()


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not there")
    text = unit.read_text()
    assert text.count("/opt/edgessl/bin/edgessl node zenoh") == 1
    copy = tmp_path / unit.name
    copy.write_text(text.replace("/opt/edgessl/bin/edgessl node zenoh", "/bin/true node zenoh"))  # which must exist
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_systemd_calls_its_exposure_ok(unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not there")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=30", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized option" in done.stderr or "Unknown" in done.stderr:
        pytest.skip("this systemd-analyze judges no file")
    assert done.returncode == 0, done.stdout[-300:]


def test_the_unit_runs_hardened_and_starts_again_within_limits(unit: Path) -> None:
    found = settings(unit)
    for name in ("DynamicUser", "NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictSUIDSGID"):
        assert found[name] == ["yes"], name
    assert found["ProtectSystem"] == ["strict"]
    assert found["CapabilityBoundingSet"] == [""]
    assert found["StateDirectory"] == ["edgessl"]
    assert (found["Type"], found["Restart"]) == (["notify"], ["on-failure"])
    assert int(found["StartLimitBurst"][0]) * int(found["RestartSec"][0]) < int(found["StartLimitIntervalSec"][0])
    assert int(found["WatchdogSec"][0]) > 10 + 10  # a run that hangs, and half a period in which nothing is said


def test_every_variable_that_is_set_is_one_that_a_node_reads(unit: Path, container: str) -> None:
    known = OWN | {entry.variable for entry in TABLE}
    used = set(re.findall(r"EDGESSL_[A-Z_]+", unit.read_text() + container))
    assert len(used) >= 6
    assert used <= known


def test_the_container_has_tensorrts_bindings_no_torch_and_no_root(container: str) -> None:
    lines = [line for line in container.splitlines() if not line.startswith("#")]
    text = "\n".join(lines)
    assert "python3-libnvinfer" in text
    assert "--system-site-packages" in text
    assert "torch" not in text
    assert "[train]" not in text
    user = next(place for place, line in enumerate(lines) if line.startswith("USER "))
    assert lines[user] == "USER edgessl"
    assert all(place < user for place, line in enumerate(lines) if line.startswith("RUN "))
    assert text.index("USER edgessl") < text.index("ENTRYPOINT")


def test_every_command_of_the_page_parses(page: str) -> None:
    group = typer.main.get_command(app)
    found = [shlex.split(line) for line in re.findall(r"^edgessl .*$", page, re.MULTILINE)]
    assert len(found) >= 2
    for _, name, word, *words in found:
        group.commands[name].commands[word].make_context(word, words)


def test_every_file_and_every_parameter_that_the_page_names_is_there(page: str, root: Path) -> None:
    files = re.findall(r"`((?:deploy|docs|examples|runtimes)/[\w/.-]+)`", page)
    assert len(files) >= 3
    assert [file for file in files if not (root / file).exists()] == []
    assert [entry.name for entry in TABLE if f"`{entry.name}`" not in page] == []
    assert [name for name in metric_names() if f"`{name}`" not in page] == []


def metric_names() -> set[str]:
    """What `--metrics` serves, by the names that a Prometheus server sees."""
    metrics = pytest.importorskip("edgessl.runtimes.robot.metrics", reason="pip install 'edgessl[metrics]'")
    served = metrics.Metrics("127.0.0.1", 0)
    served.close()
    families = served.registry.collect()
    return {family.name + ("_total" if family.type == "counter" else "") for family in families}
