"""Killed at any instant and typed again, the output is what it would have been, to the bit."""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgessl.runtimes.sinks.journal import folder_of

JOB = """
import numpy as np
from edgessl.runtimes.sinks import Space, writer_for
from edgessl.runtimes.sinks.journal import Journal
from edgessl.runtimes.sinks.offline import embed_source
from edgessl.signals import image_spec
from edgessl.sources.arrays import ArraySource

def job(output):
    frames = np.random.default_rng(0).integers(0, 255, (11, 4, 5, 3), np.uint8)
    names = [f"{row}.png" for row in range(11)]
    source = ArraySource("s", frames, image_spec(4, 5), names, stamps=np.arange(11) + 0.5)
    embed = lambda batch: batch.reshape(len(batch), -1)[:, :6].astype(np.float32)
    space = Space(space_id="a", revision=0, dim=6)
    with Journal(output, {"source": source.digest()}, space, writer_for(output)) as sink:
        embed_source(source, embed, sink, batch=4, start=sink.tally.done)
        sink.finish()
"""

CHILD = """
import os, signal, sys
from pathlib import Path
from edgessl.runtimes.sinks import journal

output, die_at, passed = Path(sys.argv[1]), int(sys.argv[2]), 0

def instant():
    global passed
    passed += 1
    if passed == die_at:
        os.kill(os.getpid(), signal.SIGKILL)

def hook(event, arguments):
    seen = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate")
    if event in seen and output.name in str(arguments[0]):
        instant()

def torn(file, content):
    whole(file, content[: len(content) // 2])
    instant()
    whole(file, content[len(content) // 2 :])
    instant()

whole, journal.write_all = journal.write_all, torn
sys.addaudithook(hook)
job(output)
"""


def killed(output: Path, die_at: int) -> int:
    """Run the job in a process that ends at its instant `die_at`, if it comes so far."""
    words = [sys.executable, "-c", JOB + CHILD, str(output), str(die_at)]
    return subprocess.run(words, check=False).returncode


@pytest.fixture
def job(tmp_path: Path) -> Callable[[Path], None]:
    """The same, in this process, to its end."""
    (tmp_path / "job.py").write_text(JOB)
    run: Callable[[Path], None] = runpy.run_path(str(tmp_path / "job.py"))["job"]
    return run


@pytest.mark.slow
def test_killed_at_every_instant_and_typed_again_the_file_is_the_same(
    job: Callable[[Path], None], tmp_path: Path
) -> None:
    job(tmp_path / "whole.npz")
    expected = (tmp_path / "whole.npz").read_bytes()
    codes = []
    while not codes or codes[-1] == -signal.SIGKILL:
        output = tmp_path / f"v{len(codes)}.npz"
        codes.append(killed(output, len(codes) + 1))
        if not output.exists():  # else it was killed behind the last rename, and it is whole
            job(output)
            assert not folder_of(output).exists()
        assert output.read_bytes() == expected, f"killed at instant {len(codes)}"
    assert codes[-1] == 0
    assert len(codes) > 20


@pytest.mark.slow
def test_killed_again_and_again_it_comes_to_its_end(job: Callable[[Path], None], tmp_path: Path) -> None:
    job(tmp_path / "whole.npz")
    output = tmp_path / "v.npz"
    codes: list[int] = []
    while not output.exists() and len(codes) < 12:
        codes.append(killed(output, 12 + len(codes) % 3))
    assert codes[:2] == [-signal.SIGKILL] * 2
    assert output.read_bytes() == (tmp_path / "whole.npz").read_bytes()
