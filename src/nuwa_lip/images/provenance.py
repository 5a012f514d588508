"""What a repainted picture says of itself, in its XMP: that a model painted in it, which one, from which seed.

IPTC's `DigitalSourceType` is what other programs look for; the rest stands in a namespace of our own. It is put into
the XMP that the photo carries, of which nothing else changes. Nothing is signed: who wants to can cut it out.
"""

import hashlib
import html
import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nuwa_lip.disk.shown import escaped
from nuwa_lip.images.photo import STRIP, Photo, upright

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
REPAINTED, GENERATED = SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia", SOURCE_TYPES + "trainedAlgorithmicMedia"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
OURS = "urn:nuwa-lip:provenance#"
SOURCE, MODEL, SEED, KNOWN = "DigitalSourceType", "Model", "Seed", "KnownPixelsSHA256"
WRITTEN = f'<rdf:Description rdf:about="" xmlns:rdf="{RDF}" xmlns:nuwalip="{OURS}"'
"""How the element that is written begins."""
PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '%s</x:xmpmeta>\n<?xpacket end="w"?>'
)
MOST = 9  # names for our namespace in one packet
END, EMPTY = re.compile(rb"</[\w.-]+:RDF\s*>"), re.compile(rb"<([\w.-]+:RDF)\b([^<>]*)/>")


@dataclass(frozen=True)
class Statement:
    """Says how a picture was repainted."""

    model: str
    """Bundled name, hub id, or a folder's or file's name; not where it lies."""
    seed: int
    known: str
    """`hash_known` of the photo that it was made from."""


def public_name(model: str) -> str:
    """Name a model without telling where on somebody's disk it lies."""
    return Path(model).resolve().name if Path(model).exists() else model


def hash_known(photo: Photo, mask: np.ndarray) -> str:
    """Return the SHA-256 of a photo's pixels outside the hole `mask` (bool [H, W], upright), row by row, in hex digits.

    Numbers of several bytes count with the lowest byte first.
    """
    digest, pixels = hashlib.sha256(), upright(photo.pixels, photo.orientation)
    for top in range(0, len(mask), STRIP):
        rows = slice(top, top + STRIP)
        known = pixels[rows][~mask[rows]]
        digest.update(known.astype(known.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def mark(image: Image.Image, statement: Statement, room: float = math.inf) -> None:
    """Put a statement into a picture's `info`, from where `files.save_image` writes it.

    Args:
        image: its XMP, if there is any, is kept and added to.
        statement: takes the place of an earlier one.
        room: bytes of XMP that the file holds; where the photo's own leaves too few, it stays as it is, with a warning.
    """
    old = image.info.get("xmp")
    if old and len(old) > room:
        old = None  # it is left out anyway, and that was said before the work
    packet = merge(old, statement)
    if len(packet) > room and (at := packet.rfind(b"<?xpacket end")) >= 0:
        packet = packet[:at].rstrip() + packet[at:]  # room that was left for changes such as this one
    if len(packet) > room:
        warnings.warn(
            "the photo's XMP leaves no room to say that it was repainted; .png and .tif have it", stacklevel=2
        )
        return
    image.info["xmp"] = packet


def merge(packet: bytes | None, statement: Statement) -> bytes:
    """Add a statement to an XMP packet, in place of what it says of the same; None makes a packet.

    A picture that was generated as a whole still says so.
    """
    packet = packet or b""
    source = GENERATED if source_type(packet) == GENERATED else REPAINTED
    values = {MODEL: escaped(statement.model), SEED: statement.seed, KNOWN: statement.known}
    ours = "".join(f' nuwalip:{name}="{html.escape(str(value))}"' for name, value in values.items())
    element = f'{WRITTEN}{ours} xmlns:Iptc4xmpExt="{IPTC}" Iptc4xmpExt:{SOURCE}="{source}"/>'.encode()
    rdf = b'<rdf:RDF xmlns:rdf="%s">%s</rdf:RDF>' % (RDF.encode(), element)
    packet = re.sub(re.escape(WRITTEN.encode()) + rb"[^<>]*/>", b"", packet)
    for name, prefix in ((SOURCE, rb"[\w.-]+"), *((name, _prefix(packet)) for name in values)):
        packet = _property(prefix, name).sub(b"", packet)
    if ends := [found.start() for found in END.finditer(packet)]:
        return packet[: ends[-1]] + element + packet[ends[-1] :]
    if EMPTY.search(packet):
        return EMPTY.sub(lambda found: b"<%s%s>%s</%s>" % (found[1], found[2], element, found[1]), packet, count=1)
    if (at := packet.rfind(b"</x:xmpmeta>")) >= 0:  # without what it should hold
        return packet[:at] + rdf + packet[at:]
    return packet + (PACKET % rdf.decode()).encode()


def source_type(packet: bytes) -> str | None:
    """Read IPTC's digital source type, an address, from an XMP packet; None where it says none."""
    return _value(packet, rb"[\w.-]+", SOURCE)


def read_statement(info: dict[str, Any]) -> Statement | None:
    """Read what a photo's `info` says of its repainting; None where it says nothing of ours."""
    packet = info.get("xmp", b"")
    model, seed, known = (_value(packet, _prefix(packet), name) for name in (MODEL, SEED, KNOWN))
    if model is None or seed is None or not re.fullmatch("[0-9]{1,20}", seed):
        return None
    return Statement(model, int(seed), known or "")


def _prefix(packet: bytes) -> bytes:
    """Match what stands for our namespace in a packet, which other programs may have written anew."""
    found = re.findall(rb"""\sxmlns:([\w.-]+)\s*=\s*["']%s["']""" % re.escape(OURS.encode()), packet)
    return b"(?:%s)" % b"|".join(sorted({b"nuwalip", *map(re.escape, found[:MOST])}))


def _property(prefix: bytes, name: str) -> re.Pattern[bytes]:
    """Match a property in each way that RDF has to write one: as attribute, as element, by reference."""
    full = prefix + b":" + name.encode()
    return re.compile(
        rb"""\s%s\s*=\s*(?:"([^"<>]*)"|'([^'<>]*)')""" % full
        + rb"""|<(%s)\b(?:[^<>]*?\s[\w.-]+:resource\s*=\s*["']([^"'<>]*)["'])?[^<>]*(?:/>|>([^<]*)</\3\s*>)""" % full
    )


def _value(packet: bytes, prefix: bytes, name: str) -> str | None:
    found = _property(prefix, name).search(packet)
    if found is None:
        return None
    value = next((found[group] for group in (1, 2, 4, 5) if found[group] is not None), b"")
    return html.unescape(value.decode("utf-8", "replace")).strip()
