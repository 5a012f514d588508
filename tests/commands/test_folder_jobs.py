"""Folder jobs: which photo goes with which mask and caption, and where the results may go."""

from pathlib import Path

import pytest

from nuwa_lip.commands.folder_jobs import Job, check_names, plan, results_folder
from nuwa_lip.errors import InputError


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


def test_names_that_are_taken(tmp_path: Path) -> None:
    a, b = (
        Job(photo=tmp_path / name, mask=tmp_path / "m.png", prompt="", out=tmp_path / f"out-{name}") for name in "ab"
    )
    check_names([(a, [a.out]), (b, [b.out])])
    own = Job(photo=a.photo, mask=a.mask, prompt="", out=a.photo)
    check_names([(own, [a.photo])])  # OUT itself may replace its own photo
    for jobs, taken in (
        ([(a, [a.out, a.photo])], a.photo),
        ([(a, [b.photo]), (b, [b.out])], b.photo),
        ([(a, [a.out]), (b, [tmp_path / "x" / ".." / a.out.name])], a.out.name),
    ):
        with pytest.raises(InputError, match="rename") as caught:
            check_names(jobs)
        assert str(taken) in str(caught.value)


def test_a_folder_for_results_stays_only_if_something_is_in_it(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    with results_folder(deep):
        assert deep.is_dir()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), results_folder(deep):
        (tmp_path / "a" / "x").touch()
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]
    for bad in (tmp_path / "a" / "x", tmp_path / "a" / "x" / "y", tmp_path / "c" / ("d" * 300)):
        with pytest.raises(InputError), results_folder(bad):
            pytest.fail("there is no such folder")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
