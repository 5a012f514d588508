"""What the tables' rows are trained by: the same commands that anyone would type, run one after another.

    MODELS/vqgan-coarse-1024/         a run of stage 1, beside it vqgan-coarse-1024.json with its words
    MODELS/tokens-vqgan-coarse-1024/  the token cache of that one
    MODELS/table4-text/               a run of stage 2

A step that is done is not done again, one that was stopped goes on; models are shared by all tables that need them.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuwa_lip.commands import train
from nuwa_lip.commands.tokenize import MASKS
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.report import write_json
from nuwa_lip.json_files import read_object
from nuwa_lip.models import DFVQGANConfig
from nuwa_lip.tables.rows import seeded
from nuwa_lip.tables.specs import PERSPECTIVES

SWITCHES = {
    "vqgan": ("--model.no-relative-estimation", "--model.no-symmetrical-connections"),
    "relative": ("--model.no-symmetrical-connections",),
    "df-vqgan": (),
}
"""Of the variants of stage 1."""
NUWA = "text-tokens"
"""The row of Table 4 that the NÜWA baseline is: a VQGAN, and no pixel encoder."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command."""

    words: tuple[str, ...]
    out: Path
    """What it makes."""
    after: tuple[Step, ...] = ()
    """The steps that made what it starts from."""

    @property
    def command(self) -> str:
        """As typed."""
        return shlex.join(["nuwa-lip", *self.words])

    @property
    def note(self) -> Path:
        """Written when it is done."""
        return self.out.with_name(self.out.name + ".json")

    def done(self) -> bool:
        """Whether it need not be done.

        Raises:
            InputError: what is there was made by other words.
        """
        if not (self.note.is_file() and self.out.is_dir()):
            return False
        made = read_object(self.note)
        if made != self.made():
            words = shlex.join(made.get("words") or [])
            raise InputError(
                f"{self.out} was made by other words ({words}), or from what was: name another --models folder, "
                f"or remove {self.note} and the folder"
            )
        return True

    def made(self) -> dict[str, Any]:
        """What it is made by, as the note says it."""
        return {"words": list(self.words), "after": [step.made() for step in self.after]}

    def run(self, call: Callable[[list[str]], None]) -> None:
        """Do it, if it is not done."""
        if not self.done():
            self.out.parent.mkdir(parents=True, exist_ok=True)
            call(list(self.words))
            write_json(self.made(), self.note)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """From what, by which recipes and to where the rows are trained."""

    models: Path
    data: tuple[str, ...]
    finetune_data: tuple[str, ...] = ()
    stage1: str = "mini"
    """Recipe of stage 1 and overrides, the same for every variant."""
    stage2: str = "mini"
    """Recipe of stage 2 and overrides."""
    finetune: str = "mini"
    """Recipe of the fine-tuning and overrides."""
    glide: str = "mini"
    """Recipe of the baseline GLIDE and overrides."""
    tokenize: str = ""
    """More words for `nuwa-lip tokenize`."""
    seed: int = 0

    def tokenizer(self, variant: str, vocabulary: str) -> list[Step]:
        """Train a variant of stage 1, for example vqgan with coarse-1024."""
        return [self._tokenizer(variant, vocabulary)]

    def own_vocabulary(self) -> str:
        """That of the recipe itself."""
        return f"coarse-{self._config(shlex.split(self.stage1)).codebook_size}"

    def stage2_of(
        self,
        name: str,
        variant: str,
        perspectives: Sequence[str],
        *,
        ratio: tuple[int, int] | None = None,
        vocabulary: str | None = None,
    ) -> list[Step]:
        """Train stage 1, make its token cache, train stage 2.

        Args:
            name: of the run.
            variant: of stage 1.
            perspectives: of MP-S2S.
            ratio: least and largest share of the photo that the holes cover, in per cent; None: as `tokenize` says.
            vocabulary: None for the recipe's own.
        """
        first = self._tokenizer(variant, vocabulary or self.own_vocabulary())
        cache = self._cache(first, self.data, "tokens", ratio)
        words = [*_recipe(self.stage2, "--stage2"), *self._fit(first), "--model.perspectives", *perspectives]
        return [first, cache, self._run("mps2s", words, (str(cache.out),), seeded(name, self.seed), (cache,))]

    def finetuned(self, name: str, base: list[Step]) -> list[Step]:
        """Go on with a model of stage 2 on other photos."""
        first, _, last = base
        cache = self._cache(first, self.finetune_data, "finetune-tokens", None)
        words = [*_recipe(self.finetune, "--finetune"), *self._fit(first), "--init-from", str(last.out / "model")]
        return [*base, cache, self._run("mps2s", words, (str(cache.out),), seeded(name, self.seed), (last, cache))]

    def diffusion(self, name: str) -> list[Step]:
        """Train the baseline GLIDE, on holes like those of stage 2."""
        recipe, *overrides = _recipe(self.glide, "--glide")
        words = [recipe, *self._holes(), *overrides]
        return [self._run("glide", words, self.data, seeded(name, self.seed))]

    def _holes(self) -> list[str]:
        """How the token caches' holes are drawn, but for photos without any, from which a GLIDE learns nothing."""
        words: dict[str, list[str]] = {}
        for field in dataclasses.fields(MASKS):
            value = getattr(MASKS, field.name)
            words[f"--masks.{field.name}"] = [str(v) for v in (value if isinstance(value, tuple) else (value,))]
        option = ""
        for word in shlex.split(self.tokenize.replace("=", " ")):
            if word.startswith("--"):
                option = word
                words[option] = []
            elif option:
                words[option].append(word)
        holes = [[option, *values] for option, values in words.items() if option.startswith("--masks.")]
        return [word for hole in holes if hole[0] != "--masks.nothing" for word in hole]

    def _tokenizer(self, variant: str, vocabulary: str) -> Step:
        words = self._stage1_words(variant, vocabulary)
        return self._run("dfvqgan", words, self.data, seeded(f"{variant}-{vocabulary}", self.seed))

    def _stage1_words(self, variant: str, vocabulary: str) -> list[str]:
        words = _recipe(self.stage1, "--stage1")
        kind, _, codes = vocabulary.partition("-")
        if kind == "fine":
            words = self._finer(words)
        return [*words, *SWITCHES[variant], "--model.codebook-size", codes]

    def _finer(self, words: list[str]) -> list[str]:
        """The same recipe with twice as many tokens a side."""
        if words[0].startswith("paper-f16"):
            return ["paper-f8-8192", *words[1:]]
        model = self._config(words)
        if model.patch > 1:
            return [*words, "--model.patch", str(model.patch // 2)]
        if len(model.channels) < 3:
            raise InputError(f"--stage1 {words[0]} has {len(model.channels)} levels: too few for a finer vocabulary")
        channels = (*model.channels[:-2], model.channels[-1])
        return [*words, "--model.channels", *map(str, channels)]

    def _cache(self, first: Step, data: Sequence[str], name: str, ratio: tuple[int, int] | None) -> Step:
        shares = [] if ratio is None else ["--masks.ratio", *(str(share / 100) for share in ratio)]
        ending = "" if ratio is None else f"-{ratio[0]}-{ratio[1]}"
        out = self.models / f"{name}-{first.out.name}{ending}"
        words = ["tokenize", "--model", str(first.out / "model"), *shlex.split(self.tokenize), *shares]
        words += ["--seed", str(self.seed), "--data", *data, "--out", str(out)]
        return Step(words=tuple(words), out=out, after=(first,))

    def _run(
        self, stage: str, words: Sequence[str], data: Sequence[str], name: str, after: tuple[Step, ...] = ()
    ) -> Step:
        if not data:
            raise InputError("--train needs --data, the photos to train on")
        out = self.models / name
        seed = ["--schedule.seed", str(self.seed)] if self.seed else []
        words = ("train", stage, *words, *seed, "--data", *data, "--out", str(out), "--resume")
        return Step(words=words, out=out, after=after)

    def _fit(self, first: Step) -> list[str]:
        """Sizes of stage 2 that go with a tokenizer."""
        words = first.words[2 : first.words.index("--data")]
        model = self._config(list(words))
        grid = str(model.grid)
        return [
            *("--model.codebook-size", str(model.codebook_size)),
            *("--model.grid", grid, grid, "--model.image-size", str(model.resolution)),
        ]

    def _config(self, words: list[str]) -> DFVQGANConfig:
        """Of the model that stage 1 trains by these words."""
        recipe = train.parse("dfvqgan", [*words, "--data", "photos", "--out", str(self.models / ".none")])[1]
        model: DFVQGANConfig = recipe.model
        return model


def table1_steps(plan: Plan, row: str) -> list[Step]:
    """Of a row of Table 1; none for one that is not trained here."""
    row = row.partition(".best-of-")[0]
    if row in ("nuwa", "nuwa-p"):
        return table4_steps(plan, NUWA)
    if row == "glide":
        return plan.diffusion("table1-glide")
    base = table4_steps(plan, "df-vqgan")
    if row == "nuwa-lip":
        return base
    if row == "nuwa-lip-finetuned" and plan.finetune_data:
        return plan.finetuned("table1-nuwa-lip-finetuned", base)
    return []


def tokenizer_steps(plan: Plan, row: str) -> list[Step]:
    """Of a row of Table 2 or 3, such as df-vqgan-coarse-1024; partial convolutions have the weights of the VQGAN."""
    variant, kind, codes = row.rsplit("-", 2)
    return plan.tokenizer("vqgan" if variant == "partial" else variant, f"{kind}-{codes}")


def table4_steps(plan: Plan, row: str) -> list[Step]:
    """Of a row of Table 4."""
    variant = "df-vqgan" if row.startswith("df-vqgan") else "vqgan"
    return plan.stage2_of(f"table4-{row}", variant, PERSPECTIVES[row])


def ratio_steps(plan: Plan, row: str) -> list[Step]:
    """Of a row of the sweep of training holes, such as ratio-40-60."""
    low, high = (int(word) for word in row.split("-")[1:])
    return plan.stage2_of(row, "df-vqgan", PERSPECTIVES["df-vqgan"], ratio=(low, high))


def _recipe(text: str, option: str) -> list[str]:
    words = shlex.split(text)
    if not words or words[0].startswith("-"):
        raise InputError(f"{option} {text!r} must begin with the name of a recipe, such as mini")
    return words
