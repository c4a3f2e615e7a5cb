"""Who vouches for a bundle: a detached OpenSSF model signature by an elliptic-curve key, without a network.

The digests in a manifest find damage; whoever changes a file on purpose changes them too. A signature covers every file of
the folder and lies beside it, `robot.edgessl.sig`, in the format of `model-signing`, whose own tool reads it as well.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgessl.bundle import MANIFEST, open_bundle
from edgessl.errors import BundleError, InputError, MissingExtraError
from edgessl.files import refuse_existing, write_atomic

_LARGEST = 2**24  # bytes of a signature; one of a bundle has some thousands


def new_key(path: Path, *, password: str = "") -> Path:
    """Write a fresh P-256 key pair: `path`, which only its owner may read, and `NAME.pub.pem` beside it.

    Args:
        path: The private key to write; a key that is there is never replaced.
        password: Encrypts the private key; empty leaves it in clear.

    Returns:
        The public key, which goes to every device.
    """
    _tools()
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public = path.with_name(f"{path.stem}.pub.pem")
    for file in (path, public):
        if file.exists() or file.is_symlink():
            raise InputError(f"{file} exists already, and a key is never replaced; choose another name")
    key = ec.generate_private_key(ec.SECP256R1())
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password.encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as opened:
        opened.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    write_atomic(public, key.public_key().public_bytes(serialization.Encoding.PEM, info))
    return public


def sign_bundle(
    path: Path, key: Path, *, password: str = "", signature: Path | None = None, overwrite: bool = False
) -> Path:
    """Sign every file of a bundle.

    Args:
        path: The bundle; what is damaged, or holds a file that its manifest does not name, is not signed.
        key: Private key, PEM, on one of the curves P-256, P-384 and P-521.
        password: Of an encrypted key.
        signature: The file to write; beside the bundle by default. Inside it, it is not part of what is signed.
        overwrite: Replace a signature that is there.

    Returns:
        The signature's path.

    Raises:
        BundleError: The bundle is damaged, or holds more than its manifest names.
        InputError: The key cannot be used, or the signature exists.
    """
    tools = _tools()
    target = signature or default_signature(path)
    bundle = open_bundle(path)
    named = {MANIFEST, *(artefact.path for artefact in bundle.artefacts)}
    if unnamed := sorted(_files(path) - named - _inside(path, target)):
        raise BundleError(f"{path} holds {_listed(unnamed)}, which its manifest does not name; remove it, then sign")
    refuse_existing(target, overwrite=overwrite, file=f"--signature {target.name}")
    config = _with_key(
        lambda: tools.signing.Config().use_elliptic_key_signer(
            private_key=key,
            password=password.encode() or None,  # its hint says str, cryptography takes bytes
        ),
        key,
        "private",
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        config.set_hashing_config(_hashing(path, {*_inside(path, target), *_inside(path, partial)}))
        config.sign(path.resolve(), partial)
        write_atomic(target, partial.read_bytes())
    finally:
        partial.unlink(missing_ok=True)
    return target


def verify_signature(path: Path, key: Path, *, signature: Path | None = None) -> list[str]:
    """Check that every file of a bundle, and no other, is what the owner of `key` signed.

    Args:
        path: The bundle.
        key: Public key, PEM.
        signature: The signature; beside the bundle by default.

    Returns:
        The files that are vouched for.

    Raises:
        BundleError: Another key, or a file that was changed, added or removed since.
        InputError: There is no signature, or the key cannot be used.
    """
    tools = _tools()
    found = signature or default_signature(path)
    if not path.is_dir():
        raise BundleError(f"there is no bundle at {path}")
    if not found.is_file():
        raise InputError(
            f"there is no signature at {found}; copy it from where {path.name} was signed, name it with --signature, "
            f"or, with the private key at hand, type: edgessl sign {path} --key private.pem"
        )
    if found.stat().st_size > _LARGEST:
        raise BundleError(f"{found} is no signature: it has {found.stat().st_size} bytes; do not use this bundle")
    config = _with_key(lambda: tools.verifying.Config().use_elliptic_key_verifier(public_key=key), key, "public")
    config.set_hashing_config(_hashing(path, _inside(path, found)))
    try:
        with contextlib.redirect_stdout(sys.stderr):  # it prints its advice
            config.verify(path.resolve(), found)
        names = _signed_names(found)
    except Exception as error:  # a hostile signature fails anywhere in model-signing, pydantic, json and cryptography
        what = str(error)[:500] or type(error).__name__
        raise BundleError(
            f"{path} is not what the owner of {key} signed in {found}: {what}. Do not use this bundle"
        ) from error
    # What a signature says is to be ignored, model-signing ignores; here no file is exempt but the signature itself.
    if unsigned := sorted(_files(path) - names - _inside(path, found)):
        raise BundleError(f"{path} holds {_listed(unsigned)}, which nobody signed. Do not use this bundle")
    return sorted(names)


def default_signature(path: Path) -> Path:
    """Where the signature of the bundle at `path` lies unless it is said otherwise: beside it."""
    folder = path.resolve() if path.name in ("", "..") else path
    return folder.with_name(f"{folder.name}.sig")


def _tools() -> Any:
    try:
        import model_signing
    except ModuleNotFoundError as error:
        # model-signing 1.1.1 imports pyOpenSSL without asking for it.
        if (error.name or "").partition(".")[0] not in ("model_signing", "OpenSSL", "cryptography"):
            raise
        raise MissingExtraError("model-signing", "sign") from error
    return model_signing


def _with_key(make: Callable[[], Any], key: Path, kind: str) -> Any:
    if not key.is_file():
        raise InputError(f"there is no key at {key}; type: edgessl sign --new-key private.pem")
    try:
        return make()
    except (ValueError, TypeError, AttributeError) as error:  # AttributeError: a key of another family
        hint = "; is it encrypted? Add --password-env NAME" if isinstance(error, TypeError) else ""
        raise InputError(
            f"{key} is no {kind} key on a curve P-256, P-384 or P-521: {error}{hint}. "
            "Type: edgessl sign --new-key private.pem"
        ) from error
    except Exception as error:
        from cryptography.exceptions import UnsupportedAlgorithm

        if not isinstance(error, UnsupportedAlgorithm):
            raise
        raise InputError(f"{key} is a key that cannot be used: {error}") from error


def _hashing(path: Path, ignored: set[str]) -> Any:
    config = _tools().hashing.Config().use_file_serialization(hashing_algorithm="sha256", allow_symlinks=False)
    # By default what git leaves in a folder is ignored, and with it whatever is put there.
    return config.set_ignored_paths(paths=[path.resolve() / name for name in ignored], ignore_git_paths=False)


def _files(path: Path) -> set[str]:
    """Everything in a folder that is no folder, links included."""
    found = (entry for entry in path.rglob("*") if entry.is_symlink() or not entry.is_dir())
    return {entry.relative_to(path).as_posix() for entry in found}


def _inside(path: Path, file: Path) -> set[str]:
    """The name of `file` inside the folder, where it lies there."""
    here, place = path.resolve(), file.parent.resolve() / file.name
    return {place.relative_to(here).as_posix()} if place.is_relative_to(here) else set()


def _signed_names(signature: Path) -> set[str]:
    envelope = json.loads(signature.read_text(encoding="utf-8"))["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    return {str(resource["name"]) for resource in statement["predicate"]["resources"]}


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
