"""The command: finds what is meant, one line and the right exit code for whatever goes wrong."""

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import nuwa_lip as package
from nuwa_lip import cli
from nuwa_lip.cli import COMMANDS
from nuwa_lip.errors import InputError, Preempted

Run = Callable[..., Any]
GROUPS = sorted({name.split()[0] for name in COMMANDS if " " in name} - {*COMMANDS})


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_the_overview_lists_every_command(words: tuple[str, ...], nuwa_lip: Run) -> None:
    done = nuwa_lip(*words)
    assert done.code == 0 and done.err == ""
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name} " in done.out and summary in done.out


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
@pytest.mark.parametrize("group", GROUPS)
def test_a_group_lists_its_own(group: str, words: tuple[str, ...], nuwa_lip: Run) -> None:
    done = nuwa_lip(group, *words)
    assert done.code == 0
    for name in COMMANDS:
        assert (f"  {name} " in done.out) == name.startswith(f"{group} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, nuwa_lip: Run) -> None:
    done = nuwa_lip(*name.split(), "--help")
    assert done.code == 0 and f"nuwa-lip {name} " in done.out.replace("usage: nuwa-lip", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_breaks_lines_only_where_they_are_full(name: str, nuwa_lip: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = [line for line in nuwa_lip(*name.split(), "--help").out.splitlines() if re.match(r"  +\S", line)]
    for before, line in itertools.pairwise(lines):
        column = re.search(r"\S", line).start()  # where the text of an option stands, below its name or beside it
        if column > 4 and re.match(r"  \S", before[column - 2 :]):
            assert len(before.rstrip()) + 1 + len(line.split()[0]) > 98, before


def test_version(nuwa_lip: Run) -> None:
    assert nuwa_lip("--version").out == f"nuwa-lip {package.__version__}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("inpant",), "there is no command 'inpant'; did you mean 'inpaint'?"),
        (("dta",), "there is no command 'dta'; did you mean 'data'?"),
        (("data", "shards2"), "there is no command 'data shards2'; did you mean 'data shards'?"),
        (("bench", "xyzxyz"), "there is no command 'bench xyzxyz'; there are: bench growth, bench steps"),
        (("--model", "x"), "there is no command '--model'; there are: inpaint, demo"),
        (("",), "there is no command ''; there are: inpaint"),
    ],
)
def test_unknown_commands(words: tuple[str, ...], says: str, nuwa_lip: Run) -> None:
    done = nuwa_lip(*words)
    assert done.code == 2 and done.out == "" and says in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize(
    "words", [(), ("photo.png",), ("photo.png", "--prompt", "x", "-o", "x.png", "--steps", "many")]
)
def test_wrong_usage_is_2_and_short(words: tuple[str, ...], nuwa_lip: Run) -> None:
    done = nuwa_lip("inpaint", *words)
    assert done.code == 2 and "Traceback" not in done.err and 1 <= done.err.count("\n") < 25


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., object]], None]:
    """Puts a function into the place of the only command `do`."""

    def replace(function: Callable[..., object]) -> None:
        monkeypatch.setattr(cli, "COMMANDS", {"do": ("tests.conftest:do", "does")})
        monkeypatch.setattr(cli.importlib, "import_module", lambda _: type("Module", (), {"do": function}))

    return replace


@pytest.mark.parametrize(
    "words", [("do", "--threads", "1"), ("--threads=1", "do"), ("do", "--threads", "2", "--threads", "1")]
)
def test_threads_are_those_of_the_command_alone(words: tuple[str, ...], nuwa_lip: Run, command: Run) -> None:
    seen = []
    command(lambda argv: seen.append((argv, torch.get_num_threads(), os.environ["OMP_NUM_THREADS"])))
    threads, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(2)
    try:
        assert nuwa_lip(*words).code == 0 and seen == [([], 1, "1")]
        assert torch.get_num_threads() == 2 and os.environ.get("OMP_NUM_THREADS") == variable
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("value", [("--threads",), ("--threads", "0"), ("--threads", "-1"), ("--threads=two",)])
def test_a_wrong_number_of_threads_is_named(value: tuple[str, ...], nuwa_lip: Run, command: Run) -> None:
    command(raising(AssertionError()))
    done = nuwa_lip("do", *value)
    assert done.code == 2 and done.err.count("\n") == 1 and "--threads" in done.err


def test_waiting_threads_sleep(nuwa_lip: Run, command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    command(lambda argv: None)
    for before, after in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if before:
            monkeypatch.setenv("OMP_WAIT_POLICY", before)
        nuwa_lip("do")
        assert os.environ["OMP_WAIT_POLICY"] == after


def raising(error: BaseException) -> Callable[..., None]:
    def do(argv: list[str]) -> None:
        raise error

    return do


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (InputError("a.png is\nno picture"), 2, "nuwa-lip: a.png is no picture\n"),
        (
            OSError(28, "No space left on device"),
            1,
            "nuwa-lip: OSError: [Errno 28] No space left on device\n",
        ),
        (MemoryError(), 1, "nuwa-lip: MemoryError\n"),
        (RuntimeError("a\n  b"), 1, "nuwa-lip: RuntimeError: a b\n"),
        (KeyboardInterrupt(), 1, "nuwa-lip: stopped\n"),
    ],
)
def test_errors_are_one_line(error: BaseException, code: int, says: str, nuwa_lip: Run, command: Run) -> None:
    command(raising(error))
    done = nuwa_lip("do")
    assert (done.code, done.out, done.err) == (code, "", says)


def test_a_traceback_only_if_asked_for(nuwa_lip: Run, command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUWA_LIP_DEBUG", "1")
    command(raising(InputError("bad")))
    done = nuwa_lip("do")
    assert done.code == 2 and "Traceback" in done.err and done.err.endswith("nuwa-lip: bad\n")


def test_warnings_are_one_line_and_no_error(nuwa_lip: Run, command: Run) -> None:
    def do(argv: list[str]) -> None:
        import warnings

        warnings.warn("first\nsecond", stacklevel=1)

    command(do)
    assert nuwa_lip("do") == (0, "", "nuwa-lip: warning: first second\n")


def test_a_function_of_argv_parses_by_itself_and_tyro_for_the_others(nuwa_lip: Run, command: Run) -> None:
    seen: list[object] = []

    def raw(argv: list[str]) -> None:
        seen.append(argv)

    def typed(number: int, *, flag: bool = False) -> None:
        seen.append((number, flag))

    command(raw)
    assert nuwa_lip("do", "--a.b", "c", "-h").code == 0
    command(typed)
    assert nuwa_lip("do", "--number", 5, "--flag").code == 0 and nuwa_lip("do", "--number", "x").code == 2
    assert seen == [["--a.b", "c", "-h"], (5, True)]


def test_as_a_process_it_imports_what_it_needs_and_no_more(
    tiny_model: Path, photo_file: Path, mask_file: Path, tmp_path: Path
) -> None:
    """The inference path runs without torchvision, torch's compiler, and the libraries of training."""
    named = photo_file.rename(tmp_path / "für 写真.png")
    words = ["inpaint", named, "--mask", mask_file, "--prompt", "x", "--model", tiny_model]
    code = (
        "import sys; from nuwa_lip.cli import main; main()\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} | {'torch._dynamo'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, words), "-o", str(tmp_path / "out.png")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert run.returncode == 0, run.stderr
    loaded = set(run.stdout.splitlines()[-1].split())
    assert "torch" in loaded and (tmp_path / "out.png").exists()
    heavy = {"torchvision", "torch._dynamo", "sympy", "huggingface_hub", "transformers", "accelerate"}
    assert not loaded & (heavy | {"webdataset", "tensorboard", "scipy", "cv2"})


@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [(["--help"], ""), (["--help"], "1"), (["inpaint", "--help"], ""), (["train", "mps2s", "--help"], "1")],
)
def test_output_that_nobody_reads_ends_quietly(words: list[str], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(
        [sys.executable, "-m", "nuwa_lip", *words],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writer)
    assert (run.returncode, run.stderr) == (1, "")


def test_help_needs_no_torch() -> None:
    code = "import sys; from nuwa_lip.cli import main; main()\nassert not {'torch', 'tyro', 'numpy'} & set(sys.modules)"
    run = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert run.returncode == 0 and "inpaint" in run.stdout, run.stderr


def test_as_a_module_and_as_a_script() -> None:
    for words in ([sys.executable, "-m", "nuwa_lip"], [str(Path(sys.executable).parent / "nuwa-lip")]):
        if os.path.exists(words[0]):
            run = subprocess.run([*words, "nonsense"], capture_output=True, text=True)
            assert run.returncode == 2 and run.stderr.startswith("nuwa-lip: there is no command 'nonsense'")


def test_a_value_may_look_like_an_option(nuwa_lip: Run, tmp_path: Path) -> None:
    """`--tokenize "--variants 1"`: it has a space in it, as no option has."""
    words = ("evaluate", "table2", tmp_path, "--tokenize", "--variants 1", "--pictures", -1)
    assert "--pictures -1 is too small" in nuwa_lip(*words).err
    words = ("inpaint", tmp_path / "none.png", "--prompt", "- a cat", "-o", tmp_path / "o.png")
    assert "none.png" in nuwa_lip(*words).err


def test_a_file_named_like_an_option_is_told(nuwa_lip: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("--photo.png").touch()
    words = ("--mask", "m.png", "--prompt", "", "-o", "o.png")
    done = nuwa_lip("inpaint", "--photo.png", *words)
    assert done.code == 2 and done.err.endswith("--photo.png is taken for an option; the file is ./--photo.png\n")
    assert "--photo.png is not a picture" in nuwa_lip("inpaint", "./--photo.png", *words).err


def test_what_a_terminal_would_obey_is_spelled_out(nuwa_lip: Callable[..., Any]) -> None:
    done = nuwa_lip("data", "benchmark", "--verify", "no\x1b[2Jphoto\u202e.png")
    assert done.code == 2 and r"no\x1b[2Jphoto\u202e.png" in done.err and "\x1b" not in done.err


@pytest.mark.parametrize(("kind", "code"), [(Preempted, 75), (KeyboardInterrupt, 1)])
def test_a_training_stopped_by_sigterm_asks_for_more_time(
    kind: type[BaseException], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise kind

    monkeypatch.setattr("nuwa_lip.cli.run", stopped)
    with pytest.raises(SystemExit) as ended:
        cli.main(["train"])
    assert ended.value.code == code and capsys.readouterr().err == "nuwa-lip: stopped\n"
