"""Captions files of every layout."""

from pathlib import Path

import pytest

from nuwa_lip.commands.captions import caption_for, is_captions_file, read_captions
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
