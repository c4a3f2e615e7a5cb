"""What of a bundle can run on this machine: every engine in every precision, tried, with the reason where it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgessl.bundle import PRECISIONS, Bundle, open_bundle
from edgessl.errors import EdgeSSLError, InputError
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.engines import ENGINES, FAKE, EngineSettings
from edgessl.runtimes.graphs import precisions_for


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A bundle in one engine and one precision.

    Attributes:
        name: What it is called in a table: `ENGINE PRECISION`, with the bundle where there are several.
    """

    bundle: Bundle
    engine: str
    precision: str
    name: str

    def open(self, settings: EngineSettings) -> tuple[Encoder | None, str]:
        """The open encoder, after one run, and nothing; or nothing and the reason."""
        encoder = None
        try:
            encoder = Encoder(self.bundle, engine=self.engine, precision=self.precision, settings=settings)
            encoder.embed(np.zeros((1, *self.bundle.input.shape), self.bundle.input.dtype))
        except EdgeSSLError as error:
            if encoder is not None:
                encoder.close()
            return None, str(error).splitlines()[0]
        return encoder, ""


def contenders_of(bundle: Bundle) -> list[Contender]:
    """Every engine but the fake one, in every precision that the bundle has a graph in, the plainest first."""
    return [
        Contender(bundle=bundle, engine=engine, precision=precision, name=f"{engine} {precision}")
        for engine in ENGINES
        if engine != FAKE
        for precision in reversed(bundle.precisions("encoder", engine))
    ]


def contender_named(text: str, default: Path | None) -> Contender:
    """`ENGINE:PRECISION` of the default bundle, `OTHER.edgessl`, or `OTHER.edgessl:ENGINE:PRECISION`.

    A bundle alone runs as `edgessl.open` would run it: the first engine, the cheapest precision.

    Raises:
        InputError: It is none of these, or there is no default bundle.
        EngineError: The first engine cannot be used.
        BundleError: The bundle is missing or damaged.
    """
    words = text.split(":")
    named = len(words) > 1 and words[-2] in ENGINES and words[-1] in PRECISIONS
    path = ":".join(words[:-2] if named else words)
    if not named and not Path(path).exists():
        raise InputError(
            f"{text!r} is neither ENGINE:PRECISION nor a bundle; type for instance onnxruntime:int8, other.edgessl or "
            "other.edgessl:openvino:fp32"
        )
    if not path and default is None:
        raise InputError(f"{text!r} of which bundle? Type: edgessl bench robot.edgessl --compare {text} ...")
    bundle = open_bundle(Path(path) if path else default or Path())
    engine = words[-2] if named else next(iter(ENGINES))
    precision = words[-1] if named else next(iter(precisions_for(bundle, "encoder", engine)), "fp32")
    return Contender(bundle=bundle, engine=engine, precision=precision, name=f"{bundle.path.name} {engine} {precision}")
