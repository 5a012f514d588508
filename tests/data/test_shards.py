"""Shards: what is written is read back, damage is skipped and named, nothing is unpickled."""

import io
import json
import os
import pickle
import struct
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nuwa_lip.data.shards import (
    Sample,
    decode_picture,
    expand_shards,
    read_samples,
    upright_rgb,
    write_shards,
)
from nuwa_lip.errors import InputError


def photo(seed: int, width: int = 24, height: int = 20) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def samples(n: int) -> list[Sample]:
    return [Sample(key=f"photo{i}", image=photo(i), captions=[f"café {i}", "two"], meta={"n": i}) for i in range(n)]


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_round_trip_is_lossless_with_png(tmp_path: Path) -> None:
    write_shards(samples(5), tmp_path, image_format="png")
    for got, sent in zip(read_samples(tmp_path), samples(5), strict=True):
        assert (got.key, got.captions, got.meta) == (sent.key, sent.captions, sent.meta)
        np.testing.assert_array_equal(np.asarray(got.image), np.asarray(sent.image))


def test_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_shards(samples(4), tmp_path / name)[0] for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_shards_are_split_by_size_and_read_by_pattern(tmp_path: Path) -> None:
    written = write_shards(samples(6), tmp_path, prefix="set", max_bytes=4000)
    assert len(written) > 1
    last = len(written) - 1
    for form in (tmp_path / "set-*.tar", f"{tmp_path}/set-{{000000..{last:06d}}}.tar", tmp_path, written):
        assert [s.key for s in read_samples(form)] == [f"photo{i}" for i in range(6)]


def test_keys_are_made_safe_and_unique(tmp_path: Path) -> None:
    keys = ["a/b.c", "a/b.c", "a b_c", "x" * 200]
    write_shards([Sample(key=key, image=photo(0), captions=[]) for key in keys], tmp_path)
    assert [s.key for s in read_samples(tmp_path)] == ["a_b_c", "a_b_c-2", "a_b_c-3", "x" * 80]


def test_img2dataset_layout(tmp_path: Path) -> None:
    meta = json.dumps({"caption": "a dog", "key": "000000000", "status": "success"}).encode()
    files = {
        "000000000.jpg": encoded(photo(0), "JPEG"),
        "000000000.json": meta,
        "000000000.txt": b"a dog\n",
        "000000001.json": meta,
        "000000001.webp": encoded(photo(1), "WEBP"),
        "sub/000000002.JPEG": encoded(photo(1), "JPEG"),
        "sub/000000002.txt": b"a cat",
    }
    got = list(read_samples(tar(tmp_path / "00000.tar", files)))
    assert [s.captions for s in got] == [["a dog"], ["a dog"], ["a cat"]]
    assert got[0].meta["status"] == "success"


def test_photos_without_captions_are_read(tmp_path: Path) -> None:
    assert next(read_samples(tar(tmp_path / "a.tar", {"x.png": encoded(photo(0), "PNG")}))).captions == []


def test_damage_is_skipped_counted_and_named_in_one_warning(tmp_path: Path) -> None:
    good = write_shards(samples(3), tmp_path, prefix="a")[0]
    torn = tmp_path / "b-torn.tar"
    torn.write_bytes(good.read_bytes()[:3000])
    (tmp_path / "c-noise.tar").write_bytes(np.random.default_rng(0).bytes(2000))
    tar(
        tmp_path / "d.tar",
        {
            "broken.jpg": b"\xff\xd8 not a photo",
            "broken.txt": b"x",
            "list.jpg": encoded(photo(0), "JPEG"),
            "list.json": b"[1]",
            "half.json": b"{",
            "deep.jpg": encoded(photo(0), "JPEG"),
            "deep.json": b"[" * 100_000,
            "text.txt": b"alone",
            "fine.jpg": encoded(photo(7), "JPEG"),
            "fine.txt": b"fine",
        },
    )
    with pytest.warns(UserWarning) as caught:
        keys = [s.key for s in read_samples(tmp_path)]
    assert keys[:3] == ["photo0", "photo1", "photo2"] and keys[-1] == "fine"
    assert len(caught) == 1
    message = str(caught[0].message)
    for name in ("b-torn.tar", "c-noise.tar", "broken", "list", "skipped 7"):
        assert name in message, message
    assert "\n" not in message


@pytest.mark.parametrize(
    "error", [struct.error("unpack requires a buffer of 4 bytes"), RuntimeError("Failed to decode"), IndexError()]
)
def test_whatever_a_decoder_raises_is_damage(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise error

    picture = encoded(photo(0), "JPEG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(ValueError, match=str(error) or "IndexError"):
        decode_picture(picture)


def test_reasons_are_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^not a picture of a known format$"):
        decode_picture(b"text")
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(InputError, match=r"folder.tar \(Is a directory\)"):
        list(read_samples(tmp_path))


def test_a_torn_shard_gives_no_half_sample(tmp_path: Path) -> None:
    whole = write_shards(samples(2), tmp_path)[0].read_bytes()
    header = whole.index(b"photo1.json")
    torn = tmp_path / "torn.tar"
    torn.write_bytes(whole[: header + 512 + 10])  # the second photo is there, its captions are cut
    with pytest.warns(UserWarning, match="torn.tar"):
        assert [s.key for s in read_samples(torn)] == ["photo0"]


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path / "sprung").touch, ())

    trap = pickle.dumps(Trap())
    files = {f"x.{end}": trap for end in ("pkl", "pickle", "pyd", "pth", "npy")}
    got = list(read_samples(tar(tmp_path / "a.tar", {**files, "x.png": encoded(photo(0), "PNG")})))
    assert len(got) == 1 and not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "urls, says",
    [
        ("nowhere.tar", "no shard at nowhere.tar"),
        ("none-*.tar", "no shard at none"),
        ("set-{000000..000001}.tar", "set-000000.tar"),
        ("pipe:touch sprung", "give a path"),
        ("https://example.org/a.tar'; touch b", "give a path"),
        ([], "no shards were given"),
        ("set-{000000..", "set-{000000.. is no pattern of shards: Unbalanced braces"),
    ],
)
def test_missing_shards_and_commands_are_refused(urls: str | list, says: str) -> None:
    with pytest.raises(InputError, match=says):
        expand_shards(urls)


def test_urls_are_passed_on_untouched() -> None:
    url = "https://example.org/{00..01}.tar?key=a&b=c"
    assert expand_shards(url) == [url.replace("{00..01}", n) for n in ("00", "01")]


def test_empty_results_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no .tar"):
        list(read_samples(tmp_path))
    (tmp_path / "bad.tar").write_bytes(b"nothing" * 200)
    with pytest.raises(InputError, match="no photo could be read from .*bad.tar"):
        list(read_samples(tmp_path))


def test_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing():
        yield from samples(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(failing(), tmp_path / "new", max_bytes=1)
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="no photo to write"):
        write_shards([], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_folders_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(InputError, match="cannot write to .*out"):
        write_shards(samples(1), tmp_path / "out")


def test_existing_shards_are_replaced_only_when_asked(tmp_path: Path) -> None:
    write_shards(samples(4), tmp_path, max_bytes=1)
    with pytest.raises(InputError, match="--overwrite"):
        write_shards(samples(1), tmp_path)
    assert len(list(read_samples(tmp_path))) == 4
    write_shards(samples(1), tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["photos-000000.tar"]


def test_a_prefix_is_taken_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prefix 'a/b' cannot begin a file name"):
        write_shards(samples(1), tmp_path / "new", prefix="a/b")
    assert not (tmp_path / "new").exists()
    write_shards(samples(1), tmp_path, prefix="[a]")
    with pytest.raises(InputError, match="--overwrite"):
        write_shards(samples(1), tmp_path, prefix="[a]")


def test_every_mode_becomes_upright_rgb() -> None:
    grey16 = Image.fromarray(np.full((4, 6), 65535 // 2, dtype=np.uint16))
    assert abs(int(np.asarray(upright_rgb(grey16))[0, 0, 0]) - 127) <= 1
    clear = Image.new("RGBA", (4, 6), (255, 0, 0, 0))
    assert np.asarray(upright_rgb(clear)).min() == 255
    for mode in ("1", "L", "LA", "P", "CMYK", "YCbCr", "F", "I"):
        image = upright_rgb(Image.new(mode, (4, 6)))
        assert image.mode == "RGB" and image.size == (4, 6)
    turned = Image.new("RGB", (4, 6))
    turned.getexif()[274] = 6
    assert upright_rgb(turned).size == (6, 4)


def test_a_photo_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own, copied, copy = photo(0), [], Image.Image.copy
    monkeypatch.setattr(Image.Image, "copy", lambda image: (copied.append(image), copy(image))[1])
    upright = upright_rgb(own)
    assert len(copied) == 1 and upright is not own and upright.tobytes() == own.tobytes()


def test_reduced_decoding_keeps_the_least_side() -> None:
    data = encoded(photo(0, 400, 300), "JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode_picture(data, least_side=100).size == (200, 150)
    assert decode_picture(data).size == (400, 300)


def test_noise_in_the_middle_costs_only_what_it_covers(tmp_path: Path) -> None:
    shard = write_shards(samples(12), tmp_path)[0]
    data = shard.read_bytes()
    start = data.index(b"photo5.jpg") + 100  # its header, and some of its picture
    shard.write_bytes(data[:start] + np.random.default_rng(0).bytes(900) + data[start + 900 :])
    with pytest.warns(UserWarning, match=r"skipped 2 .*photo5 .*2048 bytes of it.*there are 11 photos"):
        keys = [s.key for s in read_samples(shard)]
    assert keys == [f"photo{i}" for i in range(12) if i != 5]


def test_too_much_noise_ends_the_reading(tmp_path: Path) -> None:
    shard = write_shards(samples(12), tmp_path)[0]
    data = shard.read_bytes()
    end = data.index(b"photo8.jpg") - 100
    shard.write_bytes(data[:5000] + np.random.default_rng(0).bytes(end - 5000) + data[end:])
    with pytest.raises(InputError, match=r"cannot be read, which is too much to go on.*there are \d photos"):
        list(read_samples(shard))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_in_place_of_a_shard_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    for given in (tmp_path, tmp_path / "a.tar", "/dev/zero"):
        with pytest.raises(InputError, match=r"no photo could be read .*is a (pipe|device), not a file"):
            list(read_samples(given))
    write_shards(samples(1), tmp_path)
    with pytest.warns(UserWarning, match="is a pipe"):
        assert [s.key for s in read_samples(tmp_path)] == ["photo0"]


def test_captions_hold_whole_characters_only(tmp_path: Path) -> None:
    files = {"x.png": encoded(photo(0), "PNG"), "x.json": b'{"captions": ["a \\ud83d dog"], "url": "\\udc80"}'}
    (got,) = read_samples(tar(tmp_path / "a.tar", files))
    assert got.captions == ["a ? dog"]
    write_shards([got], tmp_path / "again")
    assert next(read_samples(tmp_path / "again")).captions == ["a ? dog"]


def test_shards_that_have_appeared_meanwhile_are_not_replaced(tmp_path: Path) -> None:
    def slow():
        yield from samples(1)
        (tmp_path / "photos-000000.tar").write_text("of another process")

    with pytest.raises(InputError, match="photos-000000.tar exists already"):
        write_shards(slow(), tmp_path)
    assert (tmp_path / "photos-000000.tar").read_text() == "of another process"
