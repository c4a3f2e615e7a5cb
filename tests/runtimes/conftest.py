"""A small bundle and scenes for it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import edgessl
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.engines import ENGINES, FAKE
from edgessl.runtimes.graphs import takes_plans


@pytest.fixture(scope="session")
def tiny_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_bundle", Path(__file__).with_name("tiny_bundle.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny(tiny_module, tmp_path_factory) -> Path:
    """A whole bundle; do not write to it."""
    return tiny_module.write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny.edgessl")


@pytest.fixture
def own(tiny, tmp_path) -> Path:
    """A copy of the bundle that a test may damage."""
    return shutil.copytree(tiny, tmp_path / "own.edgessl")


@pytest.fixture
def encoder(tiny) -> Encoder:
    with edgessl.open(tiny) as opened:
        yield opened


@pytest.fixture(scope="session")
def scenes(tiny_module) -> Callable[..., np.ndarray]:
    return tiny_module.scenes


@pytest.fixture(params=[name for name in ENGINES if not takes_plans(name) and name != FAKE])
def engine_name(request):
    """Engines that compute a graph as it is, where their package is installed."""
    package, extra = ENGINES[request.param][2:]
    if find_spec(package) is None:  # not imported here: its own file keeps it from reporting that
        pytest.skip(f"pip install 'edgessl[{extra}]'")
    return request.param
