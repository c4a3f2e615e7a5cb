"""A bundle and what was learned with it -> a bundle whose factory encoder is the one that was learned.

front     a map of patches goes into the constants of the first convolution; a filter of frames stands before everything
encoder   ports that stand behind convolutions go into their constants; otherwise trunk, ports and tail become one graph
trunk     takes ports again, on top of those that were learned
tail      with the learned weights
affine    what recentring does to the vectors: MatMul, Add and unit length, behind encoder and tail

It embeds, and does not adapt: what a shift is measured against would have to be measured in the world that was learned,
and a state keeps no frames. The manifest says so (`adaptable`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors.numpy import save_file

from edgessl.bundle import Bundle, Kind, open_bundle, refuse_name, write_manifest
from edgessl.errors import GateError, InputError
from edgessl.export.adapted_graphs import composed, with_affine, with_filter, with_ports
from edgessl.export.draft import Draft, failures, judged_or_reason
from edgessl.export.surgery import static_batch
from edgessl.export.targets import TARGETS
from edgessl.files import atomic_folder, refuse_existing
from edgessl.runtimes.adapt.compatibility import Compatibility, itself
from edgessl.runtimes.adapt.learned import Learned, read_learned
from edgessl.runtimes.adapt.served import Served
from edgessl.runtimes.adapt.serving import Serving
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.fold import Fold, mixing
from edgessl.runtimes.framefilter import FrameFilter
from edgessl.runtimes.patch import with_weights
from edgessl.runtimes.port import any_mixes, mixes
from edgessl.runtimes.stem import PatchMap, kernel_of
from edgessl.runtimes.verify import Golden, ParityRow, golden_of

ENGINE = "onnxruntime"
_OF_THE_PARENT = ("artefacts", "sha256", "content_sha256", "format", "edgessl", "step", "parity", "lint")


@dataclass(frozen=True, kw_only=True)
class AdaptedReport:
    """What was written.

    Attributes:
        path: The bundle.
        space_id, space_revision: Of it.
        learned: What went into it.
        parity: One row per graph that embeds.
        left_out: Graphs of the parent that have no counterpart, with the reason.
        compatibility: Of the golden samples' new vectors with their old ones.
    """

    path: Path
    space_id: str
    space_revision: int
    learned: Learned
    parity: list[ParityRow]
    left_out: dict[str, str]
    compatibility: Compatibility


def export_adapted(
    bundle: Path, state: Path, output: Path, *, overwrite: bool = False, say: Callable[[str], None] = lambda _: None
) -> AdaptedReport:
    """Write what was learned as a bundle of its own.

    Args:
        bundle: That the learner had opened.
        state: Its folder; nothing in it changes.
        output: The folder to write, `NAME.edgessl`.
        overwrite: Replace `output`.
        say: Told about each step.

    Raises:
        InputError: Nothing was learned, or `output` exists or is the bundle or the state.
        StateError: The state is another bundle's, or in use.
        GateError: A float graph does not compute what the learner serves; nothing is written.
    """
    refuse_name(output)
    refuse_existing(output, overwrite=overwrite)
    for what, path in {"the bundle itself": bundle, "the state": state}.items():
        if path.resolve() == output.resolve():
            raise InputError(f"{output} is {what}; choose another output, such as -o adapted.edgessl")
    parent = open_bundle(bundle)
    learned = read_learned(parent, state)
    for file, why in learned.damaged.items():
        say(f"{file} was passed over: {why}")
    say(f"snapshot {learned.snapshot}: {learned.frames} frames observed, {learned.votes} learned from")
    old = golden_of(parent)
    golden = Golden(samples=old.samples, vectors=_served_vectors(parent, learned.served, old), names=old.names)
    with atomic_folder(output, overwrite=overwrite) as folder:
        draft = Draft(
            folder=folder,
            golden=golden,
            input=parent.input,
            dim=parent.dim,
            manifest=_manifest(parent, learned, output),
        )
        _write_shared(draft, parent, learned.served)
        _write_graphs(draft, parent, learned.served, say)
        draft.manifest["rejected"] = draft.rejected
        draft.manifest["parity"] = {row.file: row.to_json() for row in draft.parity}
        write_manifest(folder, draft.kinds, draft.manifest)
        open_bundle(folder)
    return AdaptedReport(
        path=output,
        space_id=parent.space_id,
        space_revision=int(draft.manifest["space_revision"]),
        learned=learned,
        parity=draft.parity,
        left_out=draft.rejected,
        compatibility=itself(old.vectors, golden.vectors),
    )


def _served_vectors(parent: Bundle, served: Served, golden: Golden) -> np.ndarray[Any, np.dtype[np.float32]]:
    with Encoder(parent, engine=ENGINE, precision="fp32") as encoder, Serving(encoder) as serving:
        return serving.prepare(served).embed(golden.samples)


def _manifest(parent: Bundle, learned: Learned, output: Path) -> dict[str, Any]:
    said = {key: value for key, value in parent.manifest.items() if key not in _OF_THE_PARENT}
    revision = int(said.get("space_revision", 0))
    provenance = dict(said.get("provenance", {}))
    provenance["parent"] = {
        "content_sha256": parent.manifest.get("content_sha256"),
        "space_id": parent.space_id,
        "space_revision": revision,
        "parent": provenance.get("parent"),
    }
    provenance["learned"] = {
        "snapshot": learned.snapshot,
        "snapshot_sha256": learned.sha256,
        "level": learned.level,
        "frames": learned.frames,
        "votes": learned.votes,
    }
    split = {key: value for key, value in said.get("split", {}).items() if key not in ("folds", "stem")}
    return said | {
        "name": output.stem,
        "space_revision": revision + 1,
        "provenance": provenance,
        "split": split,
        "adaptable": False,
        "quantization": {},
    }


def _write_shared(draft: Draft, parent: Bundle, served: Served) -> None:
    """Golden samples, the tail and its weights, and the source's statistics."""
    golden = {"samples": draft.golden.samples, "vectors": draft.golden.vectors}
    save_file(golden, draft.folder / "golden.safetensors")
    onnx.save(_tail(parent, served), draft.folder / "tail.onnx")
    save_file({**parent.tensors("weights"), **(served.tail or {})}, draft.folder / "tail.safetensors")
    save_file(parent.tensors("source"), draft.folder / "source.safetensors")
    draft.kinds |= {
        "golden.safetensors": Kind("golden"),
        "tail.onnx": Kind("tail", "fp32"),
        "tail.safetensors": Kind("weights"),
        "source.safetensors": Kind("source"),
    }


def _write_graphs(draft: Draft, parent: Bundle, served: Served, say: Callable[[str], None]) -> None:
    """Every graph that has a counterpart here, judged in its engine.

    Raises:
        GateError: One in float does not compute what the learner serves.
    """
    if not _takes(parent, served, "fp32"):
        raise GateError(
            "what was learned goes into convolutions, and the bundle does not say how its fp32 graphs take it in; "
            "export the encoder again"
        )
    have = {(artefact.engine, artefact.precision) for artefact in parent.graphs() if artefact.role == "encoder"}
    float_graphs = _pair(parent, served, "fp32")
    for engine, precision in sorted(have, key=lambda each: (each != ("", "fp32"), each)):
        name = f"{engine} {precision}".strip()
        say(name)
        if (engine, precision) == ("", "fp32"):
            files = {"encoder.onnx": Kind("encoder", "fp32"), "trunk.fp32.onnx": Kind("trunk", "fp32")}
            graphs = float_graphs
        elif (engine, precision) == (ENGINE, "int8") and not _takes(parent, served, precision):
            draft.rejected[name] = "what was learned goes into constants of its convolutions that are not on record"
            continue
        elif (engine, precision) == (ENGINE, "int8"):
            target = TARGETS["onnx"]
            files = target.files("encoder", "int8") | target.files("trunk", "int8")
            graphs = _pair(parent, served, "int8")
        elif engine == "openvino" and precision != "int8":
            _write_ir(draft, float_graphs, precision)
            continue
        else:
            draft.rejected[name] = "what was learned goes into graphs for onnxruntime and into float ones for OpenVINO"
            continue
        for path, kind in files.items():
            onnx.save(graphs[kind.role], draft.folder / path)
        if not _kept(draft, files, ENGINE, name):
            continue
        encoder = next(path for path, kind in files.items() if kind.role == "encoder")
        file = parent.graph("encoder", precision, ENGINE).relative_to(parent.path).as_posix()
        if file in parent.manifest.get("quantization", {}):
            draft.manifest["quantization"][encoder] = parent.manifest["quantization"][file]
        if precision == "fp32":
            onnx.save(static_batch(graphs["encoder"], 1), draft.folder / "encoder.b1.onnx")
            _kept(draft, {"encoder.b1.onnx": Kind("encoder", "fp32", batch=1)}, ENGINE, f"{name} of one")


def _write_ir(draft: Draft, graphs: Mapping[str, onnx.ModelProto], precision: str) -> None:
    target = TARGETS["openvino"]
    (draft.folder / target.folder).mkdir(exist_ok=True)
    files = target.files("encoder", precision) | target.files("trunk", precision)
    for path, kind in files.items():
        if kind.role in graphs:
            target.write(graphs[kind.role], draft.folder / path, precision, ())
    _kept(draft, files, target.engine, f"openvino {precision}")


def _kept(draft: Draft, files: Mapping[str, Kind], engine: str, name: str) -> bool:
    """Judge files; int8 that is too far away is left out.

    Raises:
        GateError: Float is.
    """
    rows, vectors, reason = judged_or_reason(draft, files, engine)
    if not reason:
        draft.accept(files, rows, vectors)
    elif name.startswith(f"{ENGINE} int8"):
        draft.reject(files, name, reason)
    else:
        raise GateError(f"{name} does not compute what the learner serves: {failures(rows) or reason}")
    return not reason


def _pair(parent: Bundle, served: Served, precision: str) -> dict[str, onnx.ModelProto]:
    """Encoder and trunk of one precision, with what was learned in them."""
    content, ports = parent.graph("trunk", precision, ENGINE).read_bytes(), served.ports or ()
    patch = served.front if isinstance(served.front, PatchMap) else None
    inside = ports if any_mixes(ports) else None
    if inside or patch is not None:
        fold = Fold(parent, engine=ENGINE, precision=precision, role="trunk")
        content = with_weights(content, fold.constants(inside, patch))
    ports = () if inside else ports
    trunk = onnx.load_from_string(content)
    encoder = _folded(parent, served, precision)
    if encoder is None:
        encoder = composed(trunk, ports, _tail(parent, served))
    elif served.affine is not None:
        encoder = with_affine(encoder, served.affine)
    pair = {"encoder": encoder, "trunk": with_ports(trunk, ports)}
    if isinstance(served.front, FrameFilter):
        pair = {role: with_filter(model, served.front) for role, model in pair.items()}
    return pair


def _takes(parent: Bundle, served: Served, precision: str) -> bool:
    """Whether what goes into constants can be put into the graphs of this precision."""
    graphs = {"engine": ENGINE, "precision": precision, "trunk": precision}
    mixed = {index for index, port in enumerate(served.ports or ()) if mixes(port)}
    if not mixed <= set(mixing(parent, **graphs)):
        return False
    return not isinstance(served.front, PatchMap) or kernel_of(parent, **graphs) is not None


def _folded(parent: Bundle, served: Served, precision: str) -> onnx.ModelProto | None:
    """The parent's encoder with the ports in its constants; None where they, or a tail, do not go in."""
    content = parent.graph("encoder", precision, ENGINE).read_bytes()
    if served.tail is not None:
        return None
    patch = served.front if isinstance(served.front, PatchMap) else None
    if served.ports is not None or patch is not None:
        fold = Fold(parent, engine=ENGINE, precision=precision)
        if served.ports is not None and not fold.possible:
            return None
        content = with_weights(content, fold.constants(served.ports, patch))
    return onnx.load_from_string(content)


def _tail(parent: Bundle, served: Served) -> onnx.ModelProto:
    content = parent.graph("tail").read_bytes()
    tail = onnx.load_from_string(with_weights(content, served.tail) if served.tail else content)
    return with_affine(tail, served.affine) if served.affine is not None else tail
