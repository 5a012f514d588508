"""Content Credentials (C2PA): a result signed with the user's own certificate, and what such a signature is worth.

A credential says which action was done (`c2pa.edited`), with what, to which rectangles of the photo, and that the photo
was what it was done to. No pixel changes. c2pa-python does the work; it is the extra `c2pa`.
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import nuwa_lip
from nuwa_lip.disk import regular
from nuwa_lip.errors import InputError, first_line
from nuwa_lip.images.provenance import REPAINTED, Statement
from nuwa_lip.images.windows import find_holes

EDITED, OPENED, ACTIONS = "c2pa.edited", "c2pa.opened", "c2pa.actions"
MOST = 64
"""Rectangles that are named; of more there is one around all."""
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
NO_PICTURES = {"builder": {"thumbnail": {"enabled": False}}}  # a thumbnail of the photo would show the old hole


@dataclass(frozen=True)
class Credential:
    """Says what a picture's credential is worth."""

    state: str
    """Trusted (by a given root), Valid (nobody vouches for the signer), or Invalid."""
    signer: str
    problems: tuple[str, ...]
    """C2PA's names for what is wrong, other than that nobody vouches for the signer."""
    edited: tuple[str, ...]
    """Rectangles that were edited, as WIDTHxHEIGHT+LEFT+TOP."""


class Seal:
    """Signs results; certificate and key are tried at once, before any work.

    Args:
        certificate: PEM file with the signer's certificate and, below it, those that vouch for it.
        key: PEM file with its private key.

    Raises:
        InputError: they cannot be used, or the extra is missing.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        c2pa = _library()
        chain, secret = (_read(path) for path in (certificate, key))
        info = c2pa.C2paSignerInfo(_algorithm(chain, secret, certificate, key).encode(), chain, secret, None)
        with _refused(certificate):
            self._signer = c2pa.Signer.from_info(info)
            picture = io.BytesIO()
            Image.new("L", (1, 1)).save(picture, "PNG")
            self._signed(picture.getvalue(), "image/png", None, {"action": EDITED})

    def sign(self, path: Path, original: bytes, statement: Statement, mask: np.ndarray) -> None:
        """Sign a picture's file, in place.

        Args:
            path: the result, before it gets its name.
            original: the photo's file; a credential that it has itself goes along.
            statement: which model painted, from which seed.
            mask: bool [H, W], what it painted.

        Raises:
            InputError: it cannot be signed.
        """
        action = {
            "action": EDITED,
            "digitalSourceType": REPAINTED,
            "softwareAgent": {"name": "nuwa-lip", "version": nuwa_lip.__version__},
            "changes": [{"region": [_rectangle(*box)]} for box in _boxes(mask)],
            "parameters": {"nuwa-lip.model": statement.model, "nuwa-lip.seed": str(statement.seed)},
        }
        with _refused("the result"):
            path.write_bytes(self._signed(path.read_bytes(), _media_type(path), original, action))

    def _signed(self, content: bytes, kind: str, original: bytes | None, action: dict[str, Any]) -> bytes:
        c2pa = _library()
        assertions = [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]
        agent = {"name": "nuwa-lip", "version": nuwa_lip.__version__}
        manifest = {"claim_generator_info": [agent], "format": kind, "assertions": assertions}
        context = c2pa.Context(c2pa.Settings.from_dict(NO_PICTURES))
        with c2pa.Builder.from_json(json.dumps(manifest), context) as builder:
            photo = None if original is None else _media_type(io.BytesIO(original))
            if photo in c2pa.Builder.get_supported_mime_types():
                ingredient = {"title": "photo", "relationship": "parentOf", "label": "photo"}
                builder.add_ingredient(ingredient, photo, io.BytesIO(original or b""))
                builder.add_action({"action": OPENED, "parameters": {"ingredientIds": ["photo"]}})
            else:  # of a format that credentials do not know
                builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
            out = io.BytesIO()
            builder.sign(self._signer, kind, io.BytesIO(content), out)
        return out.getvalue()


def read_credential(path: Path, roots: Path | None = None) -> Credential | None:
    """Check the credential that a picture carries; None: it carries none.

    Args:
        path: the picture.
        roots: PEM file of the certificates that are trusted to vouch for signers.

    Raises:
        InputError: the extra is missing, or the certificates cannot be used.
    """
    content = regular(path).read_bytes()
    if not is_signed(content):
        return None
    c2pa = _library()
    trust = (
        {} if roots is None else {"trust": {"user_anchors": _read(roots).decode()}, "verify": {"verify_trust": True}}
    )
    with _refused(roots or path):
        context = c2pa.Context(c2pa.Settings.from_dict(trust))
    try:
        with c2pa.Reader(_media_type(path), io.BytesIO(content), context=context) as reader:
            manifest, state = reader.get_active_manifest() or {}, reader.get_validation_state()
            results = (reader.get_validation_results() or {}).get("activeManifest", {})
    except c2pa.C2paError as error:
        return Credential("Invalid", "nobody", (first_line(error),), ())
    codes = dict.fromkeys(str(one.get("code")) for one in results.get("failure", ()))
    signature = manifest.get("signature_info", {})
    names = [str(signature[key]) for key in ("common_name", "issuer") if key in signature]
    problems = tuple(code for code in codes if code != "signingCredential.untrusted")
    return Credential(str(state), ", ".join(names) or "nobody", problems, tuple(_edited(manifest)))


def is_signed(content: bytes) -> bool:
    """Tell whether a file carries a credential, without the library that reads it."""
    return b"jumb" in content and b"c2pa" in content


def _library() -> Any:
    try:
        import c2pa  # type: ignore[import-untyped, import-not-found]
    except ImportError as error:
        raise InputError(f"Content Credentials need {error.name}: pip install 'nuwa-lip[c2pa]'") from error
    return c2pa


@contextmanager
def _refused(what: Path | str) -> Iterator[None]:
    """Say in one line what the library does not take."""
    try:
        yield
    except _library().C2paError as error:
        raise InputError(f"{what} cannot be used for a Content Credential: {first_line(error)}") from error


def _read(path: Path) -> bytes:
    try:
        return regular(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error


def _algorithm(chain: bytes, secret: bytes, certificate: Path, key: Path) -> str:
    """Name the way of signing that fits a key.

    Raises:
        InputError: certificate or key is none, they do not fit together, or C2PA has no way for such a key.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        public = x509.load_pem_x509_certificates(chain)[0].public_key()
    except ValueError as error:
        raise InputError(f"{certificate} holds no certificate in PEM") from error
    try:
        private = load_pem_private_key(secret, None)
    except TypeError as error:
        raise InputError(
            f"{key} is locked by a passphrase; unlock it into a file of your own: openssl pkey -in {key}"
        ) from error
    except ValueError as error:
        raise InputError(f"{key} holds no private key in PEM") from error
    if private.public_key() != public:
        raise InputError(f"{key} is not the key of the first certificate in {certificate}")
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in CURVES:
        return CURVES[private.curve.name]
    if isinstance(private, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise InputError(
        f"{key} is of a kind that Content Credentials do not know; ECDSA (P-256), RSA or Ed25519 is needed"
    )


def _media_type(file: Path | io.BytesIO) -> str:
    try:
        with Image.open(file) as image:
            return str(image.get_format_mimetype())
    except Exception:  # whatever a damaged file causes
        return "application/octet-stream"


def _boxes(mask: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Give left, top, width and height of the holes, or of all together where they are many."""
    boxes = find_holes(mask)
    if len(boxes) > MOST:
        whole = boxes[0]
        for box in boxes[1:]:
            whole = whole.join(box)
        boxes = [whole]
    return [(box.left, box.top, box.width, box.height) for box in boxes]


def _rectangle(left: int, top: int, width: int, height: int) -> dict[str, Any]:
    shape = {"type": "rectangle", "unit": "pixel", "origin": {"x": left, "y": top}, "width": width, "height": height}
    return {"type": "spatial", "shape": shape}


def _edited(manifest: dict[str, Any]) -> Iterator[str]:
    """List the rectangles that a manifest's actions name; it may be anybody's, of any form."""
    for assertion in manifest.get("assertions", ()):
        if not str(assertion.get("label")).startswith(ACTIONS):
            continue
        for action in assertion.get("data", {}).get("actions", ()):
            for change in action.get("changes") or ():
                for region in change.get("region", ()):
                    shape = region.get("shape") or {}
                    if shape.get("type") == "rectangle" and shape.get("unit") == "pixel":
                        origin = shape.get("origin", {})
                        numbers = (shape.get("width"), shape.get("height"), origin.get("x"), origin.get("y"))
                        if all(isinstance(number, int | float) for number in numbers):
                            yield "{:g}x{:g}+{:g}+{:g}".format(*numbers)
