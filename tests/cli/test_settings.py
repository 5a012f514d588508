"""Settings files: what they set, what the command line takes back, and how mistakes in them are told."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nuwa_lip import cli
from nuwa_lip.cli import COMMANDS
from nuwa_lip.cli.settings import options_of, read_settings
from nuwa_lip.commands.inpaint import inpaint
from nuwa_lip.commands.serve import serve

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))


def applied(text: str, *words: str) -> list[str]:
    Path("nuwa-lip.toml").write_text(text)
    settings = read_settings(None, COMMANDS)
    assert settings is not None
    return settings.apply("inpaint", inpaint, list(words))[0]


@pytest.mark.parametrize(
    ("text", "words", "result"),
    [
        ("steps = 8", ["a.png"], ["a.png", "--steps=8"]),
        ("steps = 8", ["--steps", "4"], ["--steps", "4"]),
        ("top-k = 8", ["--top_k=4"], ["--top_k=4"]),
        ("num = 3", ["-n2"], ["-n2"]),
        ('prompt = "- a cat"', [], ["--prompt=- a cat"]),
        ('prompt = "a cat"', ["--captions", "x.json"], ["--captions", "x.json"]),
        ("grid = true", [], ["--grid"]),
        ("grid = false", [], []),
        ("grid = true", ["--no-grid", "a.png"], ["a.png"]),
        ("provenance = false", [], ["--no-provenance"]),
        ("provenance = false", ["--provenance"], []),
        ("box = [1, 2, 3, 4]", [], ["--box", "1", "2", "3", "4"]),
        ("box = [[1, 2, 3, 4], [5, 6, 7, 8]]", [], ["--box", "1", "2", "3", "4", "--box", "5", "6", "7", "8"]),
        ("box = [1, 2, 3, 4]", ["--box", "5", "6", "7", "8"], ["--box", "5", "6", "7", "8"]),
    ],
)
def test_the_command_line_counts_more(text: str, words: list[str], result: list[str]) -> None:
    assert applied(f"[inpaint]\n{text}", *words) == result


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[inpaint]\nstps = 8", r"\[inpaint\] has no setting stps; did you mean steps\?"),
        ("[inpaint]\nsteps.more = 8", r"no setting steps\.more"),
        ("[inpaint]\ngrid = 1", "grid is 1; it must be true or false"),
        ("[inpaint]\nsteps = true", "steps is True; it must be a text, a number"),
        ("[inpaint]\nphoto = 'a.png'", "no setting photo"),
        ("[inpant]\nsteps = 8", r"no command for \[inpant\]; did you mean \[inpaint\]\?"),
        ("steps = 8", "steps stands in no command's table"),
        ("[data]\nshards = 8", r"\[data shards\] is 8; it must be a table"),
        ("steps =", "is no TOML"),
    ],
)
def test_mistakes_are_one_line(text: str, says: str, nuwa_lip: Run) -> None:
    Path("nuwa-lip.toml").write_text(text)
    for words in (("config",), ("inpaint", "a.png", "--prompt", "", "-o", "b.png")):
        done = nuwa_lip(*words)
        assert done.code == 2 and done.err.count("\n") == 1 and done.out == ""
        assert re.search(says, done.err) and "nuwa-lip.toml" in done.err


def test_the_first_file_that_there_is_counts_alone(nuwa_lip: Run) -> None:
    Path("home/nuwa-lip").mkdir(parents=True)
    Path("home/nuwa-lip/config.toml").write_text("[serve]\nport = 1")
    assert "serve: port = 1" in nuwa_lip("config").out
    Path("nuwa-lip.toml").write_text("[serve]\nlimits.queue = 4\ntoken = 'secret'\n[data.shards]\nsize = 9")
    out = nuwa_lip("config").out
    assert "serve: limits.queue = 4" in out and "port" not in out and "secret" not in out
    Path("other.toml").write_text("[demo]\nseed = 5")
    assert "demo: seed = 5" in nuwa_lip("config", "--config", "other.toml").out
    assert nuwa_lip("config", "--config=none.toml").code == 2
    assert "no file of settings" in nuwa_lip("config", "--config", "/dev/null").out


def test_settings_reach_the_command_and_are_told(nuwa_lip: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def do(number: int = 1, *, flag: bool = False) -> None:
        seen.append((number, flag))
        print("done")

    monkeypatch.setattr(cli, "COMMANDS", {"do": ("tests.conftest:do", "does")})
    monkeypatch.setattr(cli.importlib, "import_module", lambda _: type("Module", (), {"do": do}))
    Path("nuwa-lip.toml").write_text("[do]\nnumber = 7\nflag = true")
    assert nuwa_lip("do") == (0, "done\n", "nuwa-lip: nuwa-lip.toml sets number, flag\n")
    assert nuwa_lip("do", "--number", 2, "--no-flag") == (0, "done\n", "")
    assert nuwa_lip("do", "--quiet") == (0, "", "")
    assert seen == [(7, True), (2, False), (7, True)]


def test_commands_that_parse_by_themselves_take_none(nuwa_lip: Run) -> None:
    Path("nuwa-lip.toml").write_text("[train.mps2s]\nresume = true")
    done = nuwa_lip("train", "mps2s", "mini")
    assert done.code == 2 and "--recipe" in done.err and done.err.count("\n") == 1


def test_every_option_is_known() -> None:
    assert {"prompt", "out", "mask", "model", "steps", "box"} <= options_of(inpaint).keys()
    assert options_of(inpaint)["num"].others == ("--no-num", "-n")
    assert options_of(serve)["limits.queue"].flag == "--limits.queue"
