"""Folder jobs: captions files of every layout, and which photo goes with which mask and caption."""

from pathlib import Path

import pytest

from nuwa_lip.commands.folder_jobs import Job, caption_for, is_captions_file, plan, read_captions
from nuwa_lip.errors import InputError

LAYOUTS = {
    "a.json": '{"1.jpg": "a bear", "2": "the sea, grey"}',
    "b.json": '[{"file": "1.jpg", "caption": "a bear"}, {"name": "2", "caption": ["the sea, grey", "x"]}]',
    "a.jsonl": '{"image": "x/1.jpg", "prompt": "a bear"}\n\n{"name": "2", "text": "the sea, grey"}\n',
    "a.csv": 'file,caption,more\n1.jpg,a bear,1\n2,"the sea, grey",2\n',
    "a.tsv": "1.jpg\ta bear\n\n2\tthe sea, grey\n",
    "a.txt": "\ufeff1.jpg\ta bear\n2\tthe sea, grey",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_captions_of_every_layout(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(LAYOUTS[name], encoding="utf-8")
    captions = read_captions(tmp_path / name)
    assert captions == {"1.jpg": "a bear", "2": "the sea, grey"}
    assert caption_for(Path("photos/1.jpg"), captions) == "a bear"
    assert caption_for(Path("photos/2.png"), captions) == "the sea, grey"
    assert caption_for(Path("photos/1.png"), captions) is None


@pytest.mark.parametrize(("name", "line"), [("a.txt", "{}\t{}"), ("a.jsonl", '{{"file": "{}", "caption": "{}"}}')])
def test_captions_are_cut_at_line_breaks_only(name: str, line: str, tmp_path: Path) -> None:
    captions = {"1": "a\u2028b\x85c", "2": "the sea"}
    (tmp_path / name).write_bytes("\r\n".join(line.format(*pair) for pair in captions.items()).encode())
    assert read_captions(tmp_path / name) == captions


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", "{"),
        ("a.json", "5"),
        ("a.json", "[5]"),
        ("a.json", '{"1.jpg": 5}'),
        ("a.json", '[{"file": "1.jpg"}]'),
        ("a.json", '[{"file": "1.jpg", "caption": []}]'),
        ("a.jsonl", '{"file": "1"}'),
        ("a.jsonl", "1.jpg\ta bear"),
        ("a.jsonl", "5"),
        ("a.csv", "1.jpg,a bear\n2.jpg,the sea\n"),
        ("a.csv", "file,caption\n1.jpg\n"),
        ("a.txt", "1.jpg a bear"),
        ("a.txt", b"\xff\xfe\xff"),
    ],
)
def test_captions_that_cannot_be_read_give_one_line(name: str, content: str | bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"{name} holds no captions that can be read: ") as caught:
        read_captions(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_what_counts_as_a_captions_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert is_captions_file(str(tmp_path / "a.json"))
    for prompt in ("", "a bear", "the end of my letter.txt", "a" * 5000 + ".txt", "a/b", "bear."):
        assert not is_captions_file(prompt)
    with pytest.raises(InputError, match="there is no captions file captions.json"):
        is_captions_file("captions.json")


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_photos_get_the_masks_and_captions_of_their_names(tmp_path: Path) -> None:
    photos = touch(tmp_path / "photos", "b.JPG", "a.png", "notes.txt", "._a.png", ".hidden.png")
    masks = touch(tmp_path / "masks", "a.png", "a.txt", "b.png", "c.png")
    (tmp_path / "captions.json").write_text('{"a": "one", "b.JPG": "two"}')
    jobs = plan(photos, masks, str(tmp_path / "captions.json"), Path("out"))
    assert jobs == [
        Job(photo=photos / "a.png", mask=masks / "a.png", prompt="one", out=Path("out/a.png")),
        Job(photo=photos / "b.JPG", mask=masks / "b.png", prompt="two", out=Path("out/b.png")),
    ]
    one_for_all = plan(photos, masks / "a.png", "a bear", Path("out"))
    assert [job.mask for job in one_for_all if isinstance(job, Job)] == [masks / "a.png"] * 2
    assert [job.prompt for job in one_for_all if isinstance(job, Job)] == ["a bear"] * 2
    assert [job.mask for job in plan(photos, None, "", Path("out")) if isinstance(job, Job)] == [None] * 2


def test_photos_that_lack_something_are_named_in_place(tmp_path: Path) -> None:
    photos = touch(tmp_path / "photos", "a.png", "a.jpg", "b.png", "c.png", "d.png")
    masks = touch(tmp_path / "masks", "a.png", "b.png", "d.jpg", "d.png")
    (tmp_path / "captions.json").write_text('{"a": "one", "c": "three", "d": "four"}')
    jobs = plan(photos, masks, str(tmp_path / "captions.json"), Path("out"))
    assert isinstance(jobs[0], Job) and jobs[0].photo.name == "a.jpg"
    assert [str(job).removeprefix(f"{photos}/") for job in jobs[1:]] == [
        "a.png: its result would replace that of a.jpg; rename one of them",
        f"b.png: there is no caption for it in {tmp_path / 'captions.json'}",
        f"c.png: there is no mask c.* in {masks}",
        f"d.png: it has several masks in {masks}, d.jpg and d.png; leave one of them",
    ]


def test_a_folder_that_cannot_be_done_at_all(tmp_path: Path) -> None:
    photos = touch(tmp_path / "photos", "a.png")
    with pytest.raises(InputError, match="there are no photos in .*empty"):
        plan(touch(tmp_path / "empty", "a.txt"), None, "", Path("out"))
    with pytest.raises(InputError, match="there is no file or folder .*nowhere"):
        plan(photos, tmp_path / "nowhere", "", Path("out"))
    with pytest.raises(InputError, match="no captions file"):
        plan(photos, None, str(tmp_path / "nowhere.csv"), Path("out"))
