"""The page is one file: well-formed, nothing fetched, nothing of the manifest believed."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from edgessl.export.report import ReportData, page, write_report

EVIL = "\"><script>alert(1)</script><img src=https://evil.example/x onerror=alert(1)> &amp; 'x' \ud800"
VOID = {"meta", "img", "hr", "br"}


class Page(HTMLParser):
    """Tags that open and close, attributes, and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(text: str) -> Page:
    found = Page()
    found.feed(text)
    found.close()
    assert found.open == []
    return found


def data_of(count: int = 14, *, series: bool = False, text: str = "plain", side: int = 40) -> ReportData:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (count, side, side + 8, 3), dtype=np.uint8)
    samples = rng.normal(0, 1, (count, 3, 90)).astype(np.float32) if series else frames
    golden = rng.normal(0, 1, (count, 7)).astype(np.float32)
    golden /= np.linalg.norm(golden, axis=1, keepdims=True)
    int8 = golden + rng.normal(0, 0.2, golden.shape).astype(np.float32)
    figures = {"min_cosine": 0.98, "mean_cosine": 0.995, "knn_overlap": 0.93, "engine": "onnxruntime", "ok": True}
    manifest = {
        "name": text,
        "space_id": f"s-{text}",
        "license": text,
        "input": {"kind": "image", "shape": [40, 48, 3], text: text},
        "provenance": {"checkpoint": {"recipe": text}, "parent": text},
        "artefacts": {
            "encoder.onnx": {"role": "encoder", "precision": "fp32", "engine": "", "size_bytes": 2_500_000},
            f"{text}.onnx": {"role": text, "precision": text, "engine": text, "size_bytes": 1_250_000},
        },
        "parity": {
            "encoder.int8.onnx": figures | {"bound": {"mean_cosine": 0.99, "knn_overlap": 0.9}},
            text: figures | {"ok": False, "worst": text},
        },
        "rejected": {"openvino int8": text, text: "why"},
    }
    row = {"file": text, "engine": text, "precision": "int8", "batch": 1, "median_ms": 1.5, "ratio_to_fp32": 0.45}
    return ReportData(
        manifest=manifest,
        samples=samples,
        names=[f"{text}/{index}.png" for index in range(count)],
        vectors={"golden": golden, "encoder.onnx": golden, "encoder.int8.onnx": int8},
        measured={"machine": text, "threads": 2, "rows": [row]},
        layers={"encoder.int8.onnx": [("conv1", 0.9999), (text, 0.97), ("conv3", 0.98)]},
        lint=[{"rule": "opset", "message": text}],
    )


@pytest.mark.parametrize("series", [False, True])
def test_the_page_is_well_formed_and_fetches_nothing(series):
    text = page(data_of(series=series))
    found = parsed(text)
    for _, attributes in found.tags:
        for key in ("src", "href", "xlink:href", "action", "srcset", "data"):
            assert (attributes.get(key) or "data:image/").startswith("data:image/")
        assert not any(key.startswith("on") for key in attributes)
    assert {tag for tag, _ in found.tags} & {"script", "link", "iframe", "object", "embed", "base"} == set()
    assert re.search(r"https?://|@import|url\(", text) is None
    assert "prefers-color-scheme" in text


@pytest.mark.parametrize("series", [False, True])
def test_hostile_text_stays_text(series, tmp_path):
    whole, plain = data_of(text=EVIL, series=series), data_of(series=series)
    text = write_report(tmp_path, whole).read_text(encoding="utf-8")
    found = parsed(text)
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in parsed(page(plain)).tags]
    assert "<script" not in text
    assert "".join(found.text).count("<script>alert(1)</script>") > 10


def test_every_section_tells_its_figures():
    told = " ".join(parsed(page(data_of())).text)
    for word in (
        *("What it is", "Size", "Latency", "Agreement", "Cosines", "error starts", "Neighbours", "Left out", "Lint"),
        *("2.500", "3.750", "1.500", "0.450", "0.98000", "0.99500", "mean_cosine 0.99", "passed", "FAILED", "0.97000"),
    ):
        assert word in told


def test_every_picture_has_a_text_instead():
    for series in (False, True):
        found = parsed(page(data_of(series=series)))
        assert all(attributes["alt"] for tag, attributes in found.tags if tag == "img")
        drawings = [attributes for tag, attributes in found.tags if tag == "svg"]
        assert drawings
        assert all(each["aria-label"] and each["role"] == "img" for each in drawings)


def test_the_neighbours_that_changed_are_marked():
    rng = np.random.default_rng(1)
    whole = data_of()
    same = page(whole_with(whole, whole.vectors["golden"]))
    other = page(whole_with(whole, rng.normal(0, 1, whole.vectors["golden"].shape)))
    assert 'class="lost"' not in same
    assert other.count('class="lost"') == other.count('class="came"') > 8


def whole_with(data: ReportData, int8: np.ndarray) -> ReportData:
    vectors = {"golden": data.vectors["golden"], "encoder.int8.onnx": int8}
    return ReportData(manifest=data.manifest, samples=data.samples, names=data.names, vectors=vectors)


def test_the_worst_sample_is_named_by_the_vectors():
    whole = data_of()
    golden, int8 = whole.vectors["golden"], whole.vectors["golden"].copy()
    int8[5] = -int8[5]
    told = page(whole_with(whole, int8))
    row = re.search(r"encoder\.int8\.onnx</td>.*?</tr>", told[told.index("Agreement") :])
    assert row is not None
    assert "plain/5.png" in row.group(0)
    assert float((golden * int8).sum(1).argmin()) == 5


def test_large_frames_make_a_small_page(tmp_path):
    path = write_report(tmp_path, data_of(64, side=480))
    assert path.name == "report.html"
    assert path.stat().st_size < 2_000_000


def test_a_bundle_that_measured_nothing_has_a_page():
    nothing = ReportData(manifest={}, samples=np.zeros((1, 4, 4, 3), np.uint8), names=["a"], vectors={})
    found = parsed(page(nothing))
    assert "not stated" in " ".join(found.text)


def test_nan_is_no_figure_and_no_error():
    whole = data_of()
    text = page(whole_with(whole, np.full_like(whole.vectors["golden"], np.nan)))
    assert "no finite value" in text
