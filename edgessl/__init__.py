"""Self-supervised encoders from pretraining to a robot, where they keep learning without labels and without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgessl.errors import EdgeSSLError

if TYPE_CHECKING:
    from edgessl.runtimes.encoder import open_encoder as open  # noqa: A004

__all__ = ["EdgeSSLError", "__version__", "open"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "open":  # late, so that `import edgessl` loads neither numpy nor an engine
        from edgessl.runtimes.encoder import open_encoder

        return open_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
