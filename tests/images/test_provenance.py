"""A statement of repainting: whole and readable in every format, beside all that was there, and never twice."""

import hashlib
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.images.files import read_photo, save_image, xmp_room
from nuwa_lip.images.photo import Photo, as_photo
from nuwa_lip.images.provenance import (
    GENERATED,
    IPTC,
    OURS,
    RDF,
    REPAINTED,
    Statement,
    hash_known,
    mark,
    merge,
    public_name,
    read_statement,
    source_type,
)

SAID = Statement('a "model" & <é>', 2**63 - 1, "0" * 64)
HEAD = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">'
NAMES = f'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:e="{IPTC}"'
TAIL = "</rdf:RDF></x:xmpmeta>"
BEAR = f'<rdf:Description rdf:about="" {NAMES}><dc:title>A bear</dc:title>%s</rdf:Description>'
CAMERA = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
PACKETS = {
    "a title": HEAD + BEAR % "" + TAIL,
    "an element": HEAD + BEAR % f"<e:DigitalSourceType>{CAMERA}</e:DigitalSourceType>" + TAIL,
    "a reference": HEAD + BEAR % f'<e:DigitalSourceType rdf:resource="{CAMERA}"/>' + TAIL,
    "an attribute": HEAD + (BEAR % "").replace("rdf:about", f"e:DigitalSourceType='{CAMERA}' rdf:about") + TAIL,
    "nothing within": f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r:RDF xmlns:r="{RDF}"/></x:xmpmeta>',
    "nothing at all": '<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>',
}


def image(**info: Any) -> Image.Image:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8))
    picture.info.update(info)
    return picture


def elements(packet: bytes, name: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(packet).iter(f"{{{RDF}}}{name}"))


@pytest.mark.parametrize("name", PACKETS)
def test_a_packet_is_added_to_and_says_each_thing_once(name: str) -> None:
    before = PACKETS[name].encode()
    packet = merge(merge(before, Statement("other", 1, "")), SAID)
    assert read_statement({"xmp": packet}) == SAID and source_type(packet) == REPAINTED
    (rdf,) = elements(packet, "RDF")
    said = [e.attrib for e in rdf if f"{{{OURS}}}Model" in e.attrib]
    assert said == [
        {f"{{{RDF}}}about": "", f"{{{IPTC}}}DigitalSourceType": REPAINTED, f"{{{OURS}}}Model": SAID.model}
        | {f"{{{OURS}}}Seed": str(SAID.seed), f"{{{OURS}}}KnownPixelsSHA256": SAID.known}
    ], "another program reads it"
    assert packet.count(b"DigitalSourceType") == 1 and CAMERA.encode() not in packet
    assert packet.count(b"A bear") == before.count(b"A bear")
    assert merge(packet, SAID) == packet


def test_what_another_program_wrote_anew_is_read_and_replaced() -> None:
    texts = "".join(f"<p:{n}>{v}</p:{n}>" for n, v in (("Model", "m"), ("Seed", 3), ("KnownPixelsSHA256", "ab")))
    packet = (HEAD + f'<rdf:Description xmlns:p="{OURS}">{texts}</rdf:Description>' + TAIL).encode()
    assert read_statement({"xmp": packet}) == Statement("m", 3, "ab")
    assert read_statement({"xmp": merge(packet, SAID)}) == SAID


@pytest.mark.parametrize("packet", [None, b"", b"no XMP", b"<rdf:RDF>" * 9, b'<rdf:RDF><a nuwalip:Seed="x"'])
def test_what_is_no_packet_stays_too(packet: bytes | None) -> None:
    assert read_statement({"xmp": packet or b""}) is None
    marked = merge(packet, SAID)
    assert read_statement({"xmp": marked}) == SAID and source_type(marked) == REPAINTED
    assert packet is None or packet[:9] in marked
    if not packet:
        assert len(elements(marked, "Description")) == 1


def test_a_picture_that_was_generated_still_says_so() -> None:
    packet = merge((HEAD + BEAR % f"<e:DigitalSourceType>{GENERATED}</e:DigitalSourceType>" + TAIL).encode(), SAID)
    assert source_type(merge(packet, SAID)) == GENERATED and read_statement({"xmp": packet}) == SAID


@pytest.mark.parametrize(
    "piece",
    [b"<a:DigitalSourceType ", b" a:DigitalSourceType=", b"<a:DigitalSourceType>", b"</a:RDF ", b" ", b"<a:RDF "],
)
def test_long_packets_are_added_to_in_no_time(piece: bytes) -> None:
    """In the square of its length it would be hours."""
    packet = merge(piece * 10**5, SAID)
    assert read_statement({"xmp": packet}) == SAID and source_type(packet) == REPAINTED


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("xmp", [None, PACKETS["a title"].encode()])
def test_every_format_holds_it(ending: str, xmp: bytes | None, tmp_path: Path) -> None:
    picture = image(**({} if xmp is None else {"xmp": xmp}), dpi=(300, 300))
    pixels = np.asarray(picture).copy()
    mark(picture, SAID)
    path = tmp_path / f"x{ending}"
    save_image(picture, path)
    photo = read_photo(path)
    assert read_statement(photo.info) == SAID
    assert xmp is None or b"<dc:title>A bear</dc:title>" in photo.info["xmp"]
    assert ending == ".jpg" or (photo.pixels == pixels).all()


def test_a_jpeg_without_room_keeps_what_the_photo_says(tmp_path: Path) -> None:
    room = xmp_room(tmp_path / "x.jpg")
    assert room < xmp_room(tmp_path / "x.png")
    full = (HEAD + "<!--" + "x" * (int(room) - len(HEAD) - len(TAIL) - 7) + "-->" + TAIL).encode()
    picture = image(xmp=full)
    with pytest.warns(UserWarning, match="no room"):
        mark(picture, SAID, room)
    assert picture.info["xmp"] == full and len(full) == room
    padded = full.replace(b"x" * 2000, b"", 1) + b" " * 1950 + b'<?xpacket end="w"?>'
    for xmp in (padded, full + b" "):  # the latter is left out anyway
        picture = image(xmp=xmp)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mark(picture, SAID, room)
        assert read_statement(picture.info) == SAID and len(picture.info["xmp"]) <= room


def test_the_hash_is_of_known_pixels_as_they_are_seen() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (300, 7, 3), dtype=np.uint8)
    mask = rng.random((300, 7)) < 0.4
    expected = hashlib.sha256(pixels[~mask].tobytes()).hexdigest()
    assert hash_known(as_photo(pixels), mask) == expected
    other = np.where(mask[..., None], rng.integers(0, 256, pixels.shape, dtype=np.uint8), pixels)
    assert hash_known(as_photo(other), mask) == expected
    turned = Photo(pixels=np.rot90(pixels), mode="RGB", orientation=6)
    assert hash_known(turned, mask) == expected
    other[tuple(np.argwhere(~mask)[-1])] ^= 1
    assert hash_known(as_photo(other), mask) != expected
    deep = pixels.astype(">u2")
    assert hash_known(Photo(pixels=deep, mode="RGB"), mask) == hashlib.sha256(deep.astype("<u2")[~mask]).hexdigest()


def test_a_model_is_named_without_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert [public_name(name) for name in (str(folder), ".", "some/model")] == ["mine", "mine", "some/model"]
