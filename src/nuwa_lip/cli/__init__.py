"""The command `nuwa-lip`: picks the command, imports nothing else, and turns exceptions into one line.

Exit code 0: done; 2: wrong usage or bad input, nothing written; 75: SIGTERM has stopped a training after its
checkpoint; 1: failure. NUWA_LIP_DEBUG=1 shows tracebacks.
"""

import difflib
import importlib
import inspect
import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import nuwa_lip
from nuwa_lip.cli.quiet import Silent, silent
from nuwa_lip.cli.settings import read_settings
from nuwa_lip.disk.shown import escaped
from nuwa_lip.errors import InputError, Preempted

ENTRIES = (
    ("inpaint", "inpaint:inpaint", "repaint the hole of a photo, or of a folder of photos"),
    ("demo", "demo:demo", "repaint the bundled photos and show the result as one sheet"),
    ("verify", "verify:verify", "say what of a photo was changed, and that nothing else was"),
    ("inpaint --from", "repeat:repeat", "make a result again from its sidecar, to the byte"),
    ("models", "models:models", "list the models that are at hand"),
    ("pull", "models:pull", "fetch a model of the Hugging Face hub"),
    ("serve", "serve:serve", "paint in a browser, and serve the HTTP API"),
    ("config", "config:config", "show the file of settings that counts, and what it sets"),
    ("completion", "completion:completion", "write what completes commands and options in a shell"),
    ("data shards", "data:shards", "make WebDataset shards of captioned photos"),
    ("data shapes", "data:shapes", "draw the synthetic captioned set of coloured shapes"),
    ("data benchmark", "benchmark:benchmark", "freeze photos, captions and masks to measure on"),
    ("data text-encoder", "text_encoder:text_encoder", "cut a ready-made BERT to the words of captions"),
    ("train dfvqgan", "train:dfvqgan", "train stage 1, the tokenizer of photos with holes"),
    ("train mps2s", "train:mps2s", "train stage 2, which predicts the hole's tokens"),
    ("train glide", "train:glide", "train the baseline GLIDE, a diffusion model"),
    ("plan", "plan:plan", "say what a training costs on GPUs, before anything is paid"),
    ("tokenize", "tokenize:tokenize", "make the token cache that stage 2 trains on"),
    ("convert", "convert:convert", "bring in the VQ weights of other projects"),
    ("export", "export:export", "write a model as ONNX or torch.export files"),
    ("evaluate images", "evaluate:images", "measure a model or a folder of results on a benchmark"),
    (
        "evaluate tokenizer",
        "evaluate:tokenizer",
        "measure a tokenizer alone: reconstruction, oracle inpainting, distances",
    ),
    (
        "evaluate likelihood",
        "likelihood:likelihood",
        "measure how likely a model finds the truth, and its caption rank",
    ),
    (
        "evaluate captions",
        "evaluate_captions:captions",
        "measure how often what is painted is what the caption asks for",
    ),
    ("evaluate table1", "tables:table1", "NÜWA-LIP against other methods, beside the paper"),
    ("evaluate table2", "tables:table2", "DF-VQGAN against VQGAN in three vocabularies"),
    ("evaluate table3", "tables:table3", "what each part of DF-VQGAN gives"),
    ("evaluate table4", "tables:table4", "what each perspective of MP-S2S gives"),
    ("evaluate ratios", "tables:ratios", "how large the holes of stage 2's training should be"),
    ("evaluate human", "human:human", "blind pairs for raters, and preference rates"),
    ("bench", "bench:bench", "time every stage, against peers and this machine's limits"),
    ("bench growth", "bench:growth", "how time and memory grow with what is asked for"),
    ("bench steps", "bench:steps", "quality against the number of parallel steps"),
)
COMMANDS: dict[str, tuple[str, str]] = {name: (f"nuwa_lip.commands.{place}", text) for name, place, text in ENTRIES}
"""Name of one or two words → ("module:function", summary), from `ENTRIES`.

Tyro parses a function's parameters, unless its only one is called `argv`: that gets the words unparsed.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run `nuwa-lip` with these arguments, by default those of the process.

    Raises:
        SystemExit: with the exit code, if it is not 0.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal need not know every name's alphabet
    # before PyTorch reads it: beside a busy process threads that spin while they wait take many times as long
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            try:
                words, threads = _threads(list(sys.argv[1:] if argv is None else argv))
                words, quiet = [word for word in words if word != "--quiet"], "--quiet" in words
                words, file = (words, None) if words[:1] == ["config"] else _taken(words, "--config")
                with _at_most(threads), silent() if quiet else nullcontext():
                    run(words, None if file is None else Path(file))
            finally:
                print(end="", flush=True)  # here, for at the interpreter's end its failure cannot be caught
    except InputError as error:
        _fail(error, 2)
    except KeyboardInterrupt as error:
        print("nuwa-lip: stopped", file=sys.stderr)
        raise SystemExit(75 if isinstance(error, Preempted) else 1) from None
    except BrokenPipeError:  # nobody reads the output any more, as after `nuwa-lip --help | head -3`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where what is left of it goes
        raise SystemExit(1) from None
    except Exception as error:
        _fail(error, 1)


def run(argv: list[str], settings: Path | None = None) -> None:
    """Run the command that `argv` starts with; errors come out as exceptions.

    Args:
        argv: the words behind `nuwa-lip`.
        settings: file of settings; None: the folder's, or else the user's, if there is one.

    Raises:
        InputError: there is no such command, or it cannot use what it was given.
    """
    if argv[:1] == ["--version"]:
        print(f"nuwa-lip {nuwa_lip.__version__}")
        return
    group = {name: entry for name, entry in COMMANDS.items() if name.split()[0] == argv[0]} if argv else {}
    for words in (2, 1):
        name = " ".join(argv[:words])
        # the first word of several commands may be one itself, which takes options only
        several = sum(" --" not in one for one in group) > 1
        misspelt = words == 1 and several and len(argv) > 1 and not argv[1].startswith("-")
        if name in COMMANDS and not misspelt:
            return _call(name, argv[words:], settings)
    rest = argv[1:] if group else argv
    if not rest or rest[0] in ("-h", "--help"):
        print(overview(group or COMMANDS))
        return
    words_of_two = {name: entry for name, entry in group.items() if " " in name}
    raise InputError(_unknown(" ".join(argv[: 2 if group else 1]), words_of_two))


def overview(commands: Mapping[str, tuple[str, str]]) -> str:
    """List some commands with their summaries, as help shows them."""
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in commands.items()]
    return "\n".join(
        [
            "usage: nuwa-lip COMMAND ...",
            "",
            *lines,
            "",
            "nuwa-lip COMMAND --help shows the options and an example; nuwa-lip --version the version.",
            "Every command takes --threads N, the most cores to compute on; small models take one of them anyway.",
            "It takes --quiet, too, which leaves warnings and errors alone, and --config FILE, which has its settings.",
        ]
    )


def _threads(argv: list[str]) -> tuple[list[str], int | None]:
    """Take `--threads N` out of a command line; the command `bench` has an option of this name itself.

    Raises:
        InputError: N is no number from 1 up.
    """
    words, value = (argv, None) if argv[:1] == ["bench"] else _taken(argv, "--threads")
    if value is not None and not (value.isdecimal() and int(value) >= 1):
        raise InputError(f"--threads is {value!r}; it must be a number from 1 up")
    return words, None if value is None else min(int(value), os.cpu_count() or 1)


def _taken(argv: list[str], flag: str) -> tuple[list[str], str | None]:
    """Take every `flag VALUE` and `flag=VALUE` out of a command line → the other words, the last value or None."""
    words, value = list(argv), None
    for word in [word for word in argv if word == flag or word.startswith(f"{flag}=")]:
        at = words.index(word)
        _, equals, value = word.partition("=")
        value = value if equals else (words.pop(at + 1) if at + 1 < len(words) else "")
        del words[at]
    return words, value


@contextmanager
def _at_most(threads: int | None) -> Iterator[None]:
    """Compute on so many cores, in processes started from here too; None: as the environment says."""
    if threads is None:
        yield
        return
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    torch = sys.modules.get("torch")  # one that is loaded already does not read them any more
    loaded = torch.get_num_threads() if torch else None
    try:
        if torch:
            torch.set_num_threads(threads)
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        if torch:
            torch.set_num_threads(loaded)


def _call(name: str, argv: list[str], file: Path | None) -> None:
    module, function = COMMANDS[name][0].split(":")
    command = getattr(importlib.import_module(module), function)
    raw = list(inspect.signature(command).parameters) == ["argv"]
    settings = read_settings(file, COMMANDS)
    if settings is not None and name in settings.tables and not {"-h", "--help"} & {*argv}:
        if raw:
            raise InputError(f"{settings.path}: {name} takes no settings; a recipe's file (--recipe) has them")
        argv, used = settings.apply(name, command, argv)
        if used and not isinstance(sys.stdout, Silent):
            print(f"nuwa-lip: {escaped(settings.path)} sets {escaped(', '.join(used))}", file=sys.stderr)
    if raw:
        return command(argv)
    import tyro

    from nuwa_lip.cli.help import registry, with_joined_lines

    try:
        tyro.cli(
            with_joined_lines(command),
            prog=f"nuwa-lip {name}",
            args=_joined(argv),
            config=(tyro.conf.FlagCreatePairsOff,),
            registry=registry(),
        )
    except SystemExit as error:
        for word in argv:
            if error.code == 2 and word.startswith("-") and os.path.isfile(word):
                print(
                    f"nuwa-lip: {escaped(word)} is taken for an option; the file is ./{escaped(word)}", file=sys.stderr
                )
        raise


def _joined(argv: list[str]) -> list[str]:
    """Join `--tokenize "--variants 1"`: a word with a space in it is the value of the option before it."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and word.startswith("-") and " " in word:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _unknown(name: str, group: Mapping[str, tuple[str, str]]) -> str:
    """Say that there is no such command, within a group or (if that is empty) at all, and what may be meant."""
    names = group or sorted({*COMMANDS, *(command.split()[0] for command in COMMANDS)})
    close = [] if name.startswith("-") else difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(group or COMMANDS)}"
    return f"there is no command '{name}'; {hint}"


def _fail(error: Exception, code: int) -> None:
    if os.environ.get("NUWA_LIP_DEBUG") == "1":
        traceback.print_exception(error)
    for note in getattr(error, "__notes__", ()):
        print(f"nuwa-lip: {escaped(note)}", file=sys.stderr)
    # the exception's name helps only where the message was not written for the user
    text = escaped(" ".join(str(error).split()))
    if code != 2:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    print(f"nuwa-lip: {text}", file=sys.stderr)
    raise SystemExit(code)


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(f"nuwa-lip: warning: {escaped(' '.join(str(message).split()))}", file=sys.stderr)
