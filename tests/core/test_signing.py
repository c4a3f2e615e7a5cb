"""A signature covers every file of a bundle and no other, and asks no network."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edgessl.bundle import Kind, open_bundle, write_manifest
from edgessl.errors import BundleError, InputError, MissingExtraError
from edgessl.signals import image_spec
from edgessl.signing import default_signature, new_key, sign_bundle, verify_signature

KINDS = {
    "encoder.onnx": Kind("encoder", "fp32"),
    "openvino/encoder.int8.xml": Kind("encoder", "int8", "openvino"),
    "trunk.fp32.onnx": Kind("trunk", "fp32"),
    "tail.onnx": Kind("tail", "fp32"),
    "tail.safetensors": Kind("weights"),
    "source.safetensors": Kind("source"),
    "golden.safetensors": Kind("golden"),
}


def write_bundle(folder: Path) -> Path:
    """Whole as far as opening looks: nothing here runs a graph."""
    for seed, name in enumerate(KINDS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("safetensors"):
            save_file({"x": np.full(3, seed, np.float32)}, folder / name)
        else:
            (folder / name).write_bytes(bytes([seed]) * (50 + seed))
    facts = {"name": "t", "space_id": "t-6", "dim": 6, "input": image_spec(12, 10).to_json(), "parity": {}}
    write_manifest(folder, KINDS, facts)
    return folder


@pytest.fixture(scope="module")
def signing_tools():
    return pytest.importorskip("model_signing", reason="pip install 'edgessl[sign]'")


@pytest.fixture(scope="module")
def keys(signing_tools, tmp_path_factory) -> tuple[Path, Path]:
    private = tmp_path_factory.mktemp("keys") / "private.pem"
    return private, new_key(private)


@pytest.fixture
def own(tmp_path) -> Path:
    return write_bundle(tmp_path / "robot.edgessl")


@pytest.fixture
def signed(own, keys) -> Path:
    sign_bundle(own, keys[0])
    return own


def test_a_signed_bundle_verifies_and_names_its_files(signed, keys):
    assert set(verify_signature(signed, keys[1])) == {*KINDS, "manifest.json"}


def test_nothing_is_asked_of_a_network(own, keys, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    sign_bundle(own, keys[0])
    assert len(verify_signature(own, keys[1])) == len(KINDS) + 1


def test_the_signature_is_checked_by_hand_with_cryptography(signed, keys):
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    envelope = json.loads(default_signature(signed).read_text())["dsseEnvelope"]
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
    said = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload  # secure-systems-lab/dsse, protocol.md
    public = serialization.load_pem_public_key(keys[1].read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), said, ec.ECDSA(hashes.SHA256()))
    resources = json.loads(payload)["predicate"]["resources"]
    digests = {artefact.path: artefact.sha256 for artefact in open_bundle(signed).artefacts}
    assert {entry["name"]: entry["digest"] for entry in resources if entry["name"] in digests} == digests


def test_the_folder_may_have_another_name_or_be_reached_through_a_link(signed, keys, tmp_path):
    moved = tmp_path / "other.edgessl"
    shutil.copytree(signed, moved)
    (tmp_path / "current.edgessl").symlink_to(moved)
    for place in (moved, tmp_path / "current.edgessl"):
        assert verify_signature(place, keys[1], signature=default_signature(signed))


@pytest.mark.parametrize("name", [*KINDS, "manifest.json"])
def test_a_changed_byte_in_any_file(signed, keys, name):
    content = bytearray((signed / name).read_bytes())
    content[-1] ^= 1
    (signed / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        verify_signature(signed, keys[1])


def test_a_change_that_is_consistent_with_the_manifest(signed, keys):
    (signed / "encoder.onnx").write_bytes(b"evil" * 20)
    facts = {key: value for key, value in open_bundle_facts(signed).items() if key not in ("artefacts", "sha256")}
    write_manifest(signed, KINDS, facts)
    assert open_bundle(signed).dim == 6  # its digests are right
    with pytest.raises(BundleError, match=r"encoder\.onnx"):
        verify_signature(signed, keys[1])


def open_bundle_facts(path: Path) -> dict:
    return dict(json.loads((path / "manifest.json").read_text()))


def test_a_missing_file(signed, keys):
    (signed / "tail.onnx").unlink()
    with pytest.raises(BundleError, match=r"tail\.onnx"):
        verify_signature(signed, keys[1])


@pytest.mark.parametrize("name", ["more.bin", ".gitignore", ".git/config", "openvino/.hidden", "robot.edgessl.sig"])
def test_a_file_that_was_added(signed, keys, name):
    (signed / name).parent.mkdir(exist_ok=True)
    (signed / name).write_bytes(b"x")
    with pytest.raises(BundleError, match="Do not use"):
        verify_signature(signed, keys[1])


def test_a_link_that_was_added(signed, keys):
    (signed / "more").symlink_to(signed / "encoder.onnx")
    with pytest.raises(BundleError, match="symlink"):
        verify_signature(signed, keys[1])


def test_a_signature_by_model_signing_itself_leaves_no_file_out(own, keys, signing_tools):
    """Its default leaves out what git makes; ours does not."""
    (own / ".git").mkdir()
    (own / ".git" / "config").write_bytes(b"x")
    signature = default_signature(own)
    signing_tools.signing.Config().use_elliptic_key_signer(private_key=keys[0]).sign(own, signature)
    with pytest.raises(BundleError, match=r"\.git/config, which nobody signed"):
        verify_signature(own, keys[1])
    shutil.rmtree(own / ".git")
    assert verify_signature(own, keys[1])


def test_another_key(signed, keys, tmp_path):
    other = new_key(tmp_path / "other.pem")
    with pytest.raises(BundleError, match=r"other\.pub\.pem.*Do not use"):
        verify_signature(signed, other)


def test_a_missing_signature_names_the_line_to_type(own, keys):
    with pytest.raises(InputError, match=r"edgessl sign .*robot\.edgessl --key private\.pem"):
        verify_signature(own, keys[1])


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"verificationMaterial": {}}', b"null"])
def test_a_signature_that_is_none(signed, keys, content):
    default_signature(signed).write_bytes(content)
    with pytest.raises(BundleError, match="Do not use"):
        verify_signature(signed, keys[1])


def test_a_signature_with_any_byte_changed(signed, keys):
    whole = default_signature(signed).read_bytes()
    envelope = json.loads(whole)["dsseEnvelope"]
    payload = bytearray(base64.b64decode(envelope["payload"]))
    payload[payload.index(b"encoder") + 1] ^= 1
    told = json.loads(whole)
    told["dsseEnvelope"]["payload"] = base64.b64encode(bytes(payload)).decode()
    default_signature(signed).write_text(json.dumps(told))
    with pytest.raises(BundleError, match="InvalidSignature"):
        verify_signature(signed, keys[1])


def test_a_signature_inside_the_bundle_is_not_part_of_it(own, keys):
    inside = own / "robot.sig"
    assert sign_bundle(own, keys[0], signature=inside) == inside
    assert "robot.sig" not in verify_signature(own, keys[1], signature=inside)
    (own / "tail.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"tail\.onnx"):
        verify_signature(own, keys[1], signature=inside)


def test_a_bundle_that_is_damaged_or_holds_more_is_not_signed(own, keys):
    (own / "notes.txt").write_text("x")
    with pytest.raises(BundleError, match=r"notes\.txt"):
        sign_bundle(own, keys[0])
    (own / "notes.txt").unlink()
    (own / "tail.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="bytes"):
        sign_bundle(own, keys[0])
    assert not default_signature(own).exists()


def test_a_signature_is_replaced_on_request_only(signed, keys):
    with pytest.raises(InputError, match="--overwrite"):
        sign_bundle(signed, keys[0])
    sign_bundle(signed, keys[0], overwrite=True)
    assert verify_signature(signed, keys[1])


def test_a_new_key_is_its_owners_alone_and_replaces_none(keys, tmp_path):
    private, public = keys
    assert public.name == "private.pub.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    was = private.read_bytes()
    with pytest.raises(InputError, match="never replaced"):
        new_key(private)
    assert private.read_bytes() == was


def test_an_encrypted_key_needs_its_password(own, signing_tools, tmp_path):
    private = tmp_path / "k.pem"
    public = new_key(private, password="a b")
    assert b"ENCRYPTED" in private.read_bytes()
    for password in ("", "wrong"):
        with pytest.raises(InputError, match=r"k\.pem"):
            sign_bundle(own, private, password=password)
    sign_bundle(own, private, password="a b")
    assert verify_signature(own, public)


def test_a_key_that_cannot_be_used(own, keys, tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    pem, pkcs8, clear = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    contents = {
        "text": b"no key",
        "public": keys[1].read_bytes(),
        "curve": ec.generate_private_key(ec.SECP256K1()).private_bytes(pem, pkcs8, clear),
        "family": ed25519.Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, clear),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="--new-key"):
            sign_bundle(own, tmp_path / name)
    sign_bundle(own, keys[0])
    for name in (*contents, "none"):
        if name != "public":
            with pytest.raises(InputError, match="--new-key"):
                verify_signature(own, tmp_path / name)


@pytest.mark.parametrize("package", ["model_signing", "OpenSSL"])
def test_without_the_extra_the_pip_line_is_given(own, tmp_path, monkeypatch, package):
    for name in [name for name in sys.modules if name.partition(".")[0] == "model_signing"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"edgessl\[sign\]"):
        verify_signature(own, tmp_path / "public.pem")
