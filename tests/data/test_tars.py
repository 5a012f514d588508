"""Tars of strangers: sizes are believed no further than the file goes, and noise costs only what it covers."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuwa_lip.data.tars import BLOCK, Lost, Member, members

FILES = {f"file{i}.txt": bytes([65 + i]) * (300 + 200 * i) for i in range(6)}


def tar(files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def read(data: bytes) -> tuple[dict[str, bytes], list[int]]:
    """What members give: files by name, and how much is lost at each place."""
    found = list(members(io.BytesIO(data)))
    files = {one.name: one.data for one in found if isinstance(one, Member)}
    return files, [one.size for one in found if isinstance(one, Lost)]


def with_size(block: bytes, size: bytes) -> bytes:
    """A header that claims another size, with its sum mended."""
    block = block[:124] + size.ljust(12, b"\0")[:12] + block[136:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def binary(number: int) -> bytes:
    return b"\x80" + number.to_bytes(11, "big") if number < 2**88 else b"\x80" + b"\xff" * 11


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_whole_tars_are_read_whole(form: int) -> None:
    long = {"a" * 90 + "/" + "b" * 90 + ".txt": b"x"} | ({} if form == tarfile.USTAR_FORMAT else {"ü" * 120: b"y"})
    assert read(tar(FILES | long, form)) == (FILES | long, [])


def test_folders_and_links_have_no_content(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.txt").write_text("a")
    (tmp_path / "sub/link").symlink_to("a.txt")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "sub", "sub")
    assert read((tmp_path / "x.tar").read_bytes()) == ({"sub/a.txt": b"a"}, [])


@pytest.mark.parametrize("size", [binary(7 * 2**40), binary(2**95), b"77777777777", b"\xff" * 12, b"-1", b"nonsense"])
def test_a_forged_size_costs_its_own_file(size: bytes, tmp_path: Path) -> None:
    data = tar(FILES)
    at = data.index(b"file2.txt")
    forged = tmp_path / "forged.tar"
    forged.write_bytes(data[:at] + with_size(data[at : at + BLOCK], size) + data[at + BLOCK :])
    with forged.open("rb") as stream:  # whose length is known
        found = list(members(stream))
    names = [one.name for one in found if isinstance(one, Member)]
    assert names == [name for name in FILES if name != "file2.txt"]
    assert [one for one in found if isinstance(one, Lost)] == [Lost(BLOCK + 1024)]


@pytest.mark.parametrize("size", [b"10" + b"0" * 19, b"-5", b"9" * 4000])
def test_a_forged_size_in_a_pax_header_costs_its_own_file(size: bytes) -> None:
    record = b"%d size=%s\n"
    length = len(record % (0, size)) + 3
    data = tar({"x": record % (length, size)}).removesuffix(bytes(BLOCK))
    head = data[:BLOCK].replace(b"0" + bytes(100), b"x" + bytes(100), 1)
    pax = with_size(head[:156] + b"x" + head[157:], head[124:136]) + data[BLOCK:].split(bytes(BLOCK))[0]
    pax += bytes(-len(pax) % BLOCK)
    files, lost = read(pax + tar(FILES))
    assert files == {name: data for name, data in FILES.items() if name != "file0.txt"} and lost == [2 * BLOCK]


@given(start=st.integers(0, 9000), length=st.integers(1, 3000), seed=st.integers(0, 3), moved=st.integers(-700, 700))
def test_what_noise_does_not_touch_is_read(start: int, length: int, seed: int, moved: int) -> None:
    data = tar(FILES)
    noise = np.random.default_rng(seed).bytes(length + max(moved, 0))
    end = min(start + length - min(moved, 0), len(data))
    files, lost = read(data[:start] + noise + data[end:])
    for name, content in FILES.items():
        at = data.index(name.encode())
        if at + BLOCK + len(content) <= start or (at >= end and moved == 0):
            assert files.get(name) == content, name
    assert sum(lost) <= len(data) + len(noise)


def test_a_page_of_zeros_hides_nothing_behind_it() -> None:
    data = tar(FILES)
    at = data.index(b"file2.txt")
    files, lost = read(data[:at] + bytes(4 * BLOCK) + data[at + 4 * BLOCK :])
    assert {"file0.txt", "file1.txt", "file4.txt", "file5.txt"} <= set(files) and "file2.txt" not in files
    assert sum(lost) > 0


def test_an_end_without_a_mark_is_told() -> None:
    data = tar(FILES)
    assert read(data[: data.index(b"file3.txt")])[1] == [0]
    assert read(b"") == ({}, [0])


def test_compressed_tars_are_refused_before_they_are_unpacked() -> None:
    with pytest.raises(ValueError, match="compressed .gzip.: unpack it"):
        read(gzip.compress(tar(FILES)))
