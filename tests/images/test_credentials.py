"""Content Credentials: a signed result has the same pixels, says where it was edited, and shows a changed byte."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.errors import InputError
from nuwa_lip.images.credentials import MOST, Seal, is_signed, read_credential
from nuwa_lip.images.files import save_image
from nuwa_lip.images.provenance import REPAINTED, Statement
from tests.signers import make_signer

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
STATEMENT = Statement("tiny", 7, "")


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return make_signer(tmp_path_factory.mktemp("signer"))


def hole(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((60, 80), bool)
    for left, top, width, height in boxes:
        mask[top : top + height, left : left + width] = True
    return mask


def sign(signer: tuple[Path, Path, Path], path: Path, mask: np.ndarray, original: bytes = b"no picture") -> None:
    seal = Seal(*signer[:2])
    save_image(Image.fromarray(PIXELS), path, finish=lambda part: seal.sign(part, original, STATEMENT, mask))


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
def test_a_signature_holds_and_changes_no_pixel(
    signer: tuple[Path, Path, Path], tmp_path: Path, ending: str, photo_file: Path
) -> None:
    plain, path = tmp_path / f"plain.{ending}", tmp_path / f"x.{ending}"
    save_image(Image.fromarray(PIXELS), plain)
    sign(signer, path, hole((3, 4, 20, 10), (50, 30, 8, 9)), photo_file.read_bytes())
    assert (np.asarray(Image.open(path)) == np.asarray(Image.open(plain))).all()
    found = read_credential(path)
    assert found is not None and found.state == "Valid" and found.problems == ()
    assert found.signer == "Ada, Tests" and found.edited == ("20x10+3+4", "8x9+50+30")
    trusted = read_credential(path, signer[2])
    assert trusted is not None and trusted.state == "Trusted"
    assert REPAINTED.encode() in path.read_bytes() and b"photo.png" not in path.read_bytes()


def test_a_changed_byte_is_found(signer: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    sign(signer, path, hole((3, 4, 20, 10)))
    content = bytearray(path.read_bytes())
    content[-40] ^= 1  # of the pixels
    path.write_bytes(content)
    found = read_credential(path)
    assert found is not None and found.state == "Invalid" and "assertion.dataHash.mismatch" in found.problems
    path.write_bytes(content[: content.index(b"jumb") + 40])
    found = read_credential(path)
    assert found is not None and found.state == "Invalid"


def test_the_authority_of_somebody_else_vouches_for_nobody(signer: tuple[Path, Path, Path], tmp_path: Path) -> None:
    sign(signer, tmp_path / "x.png", hole((3, 4, 20, 10)))
    found = read_credential(tmp_path / "x.png", make_signer(tmp_path)[2])
    assert found is not None and found.state == "Valid"


def test_many_holes_are_one_rectangle(signer: tuple[Path, Path, Path], tmp_path: Path) -> None:
    specks = np.zeros((900, 900), bool)
    specks[5::100, 7::100] = True
    assert specks.sum() > MOST
    sign(signer, tmp_path / "x.png", specks)
    found = read_credential(tmp_path / "x.png")
    assert found is not None and found.edited == ("801x801+7+5",)


def test_a_credential_of_the_photo_goes_along(signer: tuple[Path, Path, Path], tmp_path: Path) -> None:
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    sign(signer, first, hole((3, 4, 20, 10)))
    sign(signer, second, hole((50, 30, 8, 9)), first.read_bytes())
    assert second.read_bytes().count(b"c2pa.claim.v2") > first.read_bytes().count(b"c2pa.claim.v2")
    found = read_credential(second)
    assert found is not None and found.state == "Valid" and found.edited == ("8x9+50+30",)


def test_pictures_without_one(tmp_path: Path, photo_file: Path) -> None:
    assert not is_signed(photo_file.read_bytes()) and read_credential(photo_file) is None


def test_what_cannot_sign_is_told_before_the_work(signer: tuple[Path, Path, Path], tmp_path: Path) -> None:
    chain, key, root = signer
    (tmp_path / "locked").mkdir()
    locked = make_signer(tmp_path / "locked", locked=b"secret")
    expected = {
        (root, key): "is not the key of the first certificate",
        (key, key): "holds no certificate in PEM",
        (chain, chain): "holds no private key in PEM",
        (chain, tmp_path / "none.pem"): "cannot be read",
        locked[:2]: "passphrase",
    }
    for (certificate, secret), says in expected.items():
        with pytest.raises(InputError, match=says):
            Seal(certificate, secret)


def test_without_the_library_the_extra_is_named(
    signer: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign(signer, tmp_path / "x.png", hole((3, 4, 20, 10)))
    monkeypatch.setitem(sys.modules, "c2pa", None)
    for call in (lambda: Seal(*signer[:2]), lambda: read_credential(tmp_path / "x.png")):
        with pytest.raises(InputError, match=r"nuwa-lip\[c2pa\]"):
            call()
