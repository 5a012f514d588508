"""Trainings of the tables' rows: the same commands that anyone would type, run one after another.

    MODELS/vqgan-coarse-1024/         a run of stage 1, beside it vqgan-coarse-1024.json with its words
    MODELS/tokens-vqgan-coarse-1024/  the token cache of that one
    MODELS/table4-text/               a run of stage 2

A step that is done is not done again, one that was stopped goes on; models are shared by all tables that need them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from nuwa_lip.commands import train
from nuwa_lip.commands.tokenize import MASKS
from nuwa_lip.data.masks import MaskRecipe
from nuwa_lip.disk import read_object
from nuwa_lip.errors import InputError
from nuwa_lip.evaluation.report import write_report
from nuwa_lip.models import DFVQGANConfig
from nuwa_lip.tables.rows import seeded
from nuwa_lip.tables.specs import PERSPECTIVES

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "vqgan": {"relative_estimation": False, "symmetrical_connections": False},
    "relative": {"symmetrical_connections": False},
    "df-vqgan": {},
}
"""Variants of stage 1: what they change in the recipe's model."""
NUWA = "text-tokens"
"""The row of Table 4 that the NÜWA baseline is: a VQGAN, and no pixel encoder."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command."""

    words: tuple[str, ...]
    out: Path
    """The folder that it makes."""
    after: tuple[Step, ...] = ()
    """The steps that made what it starts from."""

    @property
    def command(self) -> str:
        """The command as typed."""
        return shlex.join(["nuwa-lip", *self.words])

    @property
    def note(self) -> Path:
        """The file that is written when the step is done."""
        return self.out.with_name(self.out.name + ".json")

    def done(self) -> bool:
        """Say whether the step is done already.

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
        """Give the words of this step and of those before it, as the note has them."""
        return {"words": list(self.words), "after": [step.made() for step in self.after]}

    def run(self, call: Callable[[list[str]], None]) -> None:
        """Do the step, unless it is done already."""
        if not self.done():
            self.out.parent.mkdir(parents=True, exist_ok=True)
            call(list(self.words))
            write_report(self.note, self.made())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The data, recipes and folders of the rows' trainings; a recipe is its name and overrides, in one text."""

    models: Path
    data: tuple[str, ...]
    finetune_data: tuple[str, ...] = ()
    stage1: str = "mini"
    stage2: str = "mini"
    finetune: str = "mini"
    glide: str = "mini"
    tokenize: str = ""
    """More words for `nuwa-lip tokenize`."""
    seed: int = 0

    def own_vocabulary(self) -> str:
        """Name the vocabulary of the recipe of stage 1 itself, such as coarse-1024."""
        return f"coarse-{_model(_recipe(self.stage1, '--stage1')).codebook_size}"

    def tokenizer(self, variant: str, vocabulary: str | None = None) -> tuple[Step, DFVQGANConfig]:
        """Train a variant of stage 1.

        Args:
            variant: one of `VARIANTS`.
            vocabulary: coarse-N, or fine-N for twice as many tokens a side, with N codes; None: the recipe's own.
        """
        vocabulary = vocabulary or self.own_vocabulary()
        kind, _, codes = vocabulary.partition("-")
        name, *overrides = _recipe(self.stage1, "--stage1")
        published = kind == "fine" and name.startswith("paper-f16")
        words = ["paper-f8-8192" if published else name, *overrides]
        model = _model(words)
        changes = _finer(name, model) if kind == "fine" and not published else {}
        changes |= {**VARIANTS[variant], "codebook_size": int(codes)}
        step = self._train("dfvqgan", words + _flags("model", changes), self.data, f"{variant}-{vocabulary}")
        return step, replace(model, **changes)

    def stage2_of(
        self, name: str, variant: str, perspectives: Sequence[str], ratio: tuple[int, int] | None = None
    ) -> list[Step]:
        """Train stage 1, make its token cache, train stage 2.

        Args:
            name: of the run.
            variant: of stage 1.
            perspectives: of MP-S2S.
            ratio: least and largest share of the photo that the holes cover, in per cent; None: as `tokenize` says.
        """
        first, model = self.tokenizer(variant)
        cache = self._cache(first, self.data, "tokens", ratio)
        words = [*_recipe(self.stage2, "--stage2"), *_flags("model", _fit(model) | {"perspectives": perspectives})]
        return [first, cache, self._train("mps2s", words, (str(cache.out),), name, (cache,))]

    def finetuned(self, name: str, base: list[Step]) -> list[Step]:
        """Continue the training of a model of stage 2 with DF-VQGAN on other photos."""
        first, _, last = base
        cache = self._cache(first, self.finetune_data, "finetune-tokens")
        words = [*_recipe(self.finetune, "--finetune"), *_flags("model", _fit(self.tokenizer("df-vqgan")[1]))]
        words += ["--init-from", str(last.out / "model")]
        return [*base, cache, self._train("mps2s", words, (str(cache.out),), name, (last, cache))]

    def diffusion(self, name: str) -> list[Step]:
        """Train the baseline GLIDE, on holes like those of stage 2."""
        recipe, *overrides = _recipe(self.glide, "--glide")
        holes = asdict(tyro.cli(_Holes, args=shlex.split(self.tokenize), return_unknown_args=True)[0].masks)
        del holes["nothing"]  # photos without a hole teach a GLIDE nothing
        return [self._train("glide", [recipe, *_flags("masks", holes), *overrides], self.data, name)]

    def _cache(self, first: Step, data: Sequence[str], name: str, ratio: tuple[int, int] | None = None) -> Step:
        shares = [] if ratio is None else _flags("masks", {"ratio": [share / 100 for share in ratio]})
        out = self.models / "-".join([name, first.out.name, *map(str, ratio or ())])
        words = ["tokenize", "--model", str(first.out / "model"), *shlex.split(self.tokenize), *shares]
        words += ["--seed", str(self.seed), "--data", *data, "--out", str(out)]
        return Step(words=tuple(words), out=out, after=(first,))

    def _train(
        self, stage: str, words: Sequence[str], data: Sequence[str], name: str, after: tuple[Step, ...] = ()
    ) -> Step:
        if not data:
            raise InputError("--train needs --data, the photos to train on")
        out = self.models / seeded(name, self.seed)
        seed = ["--schedule.seed", str(self.seed)] if self.seed else []
        words = ("train", stage, *words, *seed, "--data", *data, "--out", str(out), "--resume")
        return Step(words=words, out=out, after=after)


@dataclass(frozen=True)
class _Holes:
    masks: MaskRecipe = MASKS


def _recipe(text: str, option: str) -> list[str]:
    """The name and the overrides of a recipe, as words."""
    words = shlex.split(text)
    if not words or words[0].startswith("-"):
        raise InputError(f"{option} {text!r} must begin with the name of a recipe, such as mini")
    return words


def _model(words: list[str]) -> DFVQGANConfig:
    """The model that stage 1 trains by a recipe."""
    model: DFVQGANConfig = train.parse("dfvqgan", [*words, "--data", "photos", "--out", ".none"])[1].model
    return model


def _flags(group: str, values: Mapping[str, Any]) -> list[str]:
    """Options that set fields of a recipe: ("model", {"codebook_size": 16}) → --model.codebook-size 16."""
    words: list[str] = []
    for field, value in values.items():
        name = field.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{group}.{'' if value else 'no-'}{name}")
        else:
            words += [f"--{group}.{name}", *map(str, value if isinstance(value, Sequence) else [value])]
    return words


def _fit(model: DFVQGANConfig) -> dict[str, Any]:
    """Fields of stage 2's model that go with a tokenizer."""
    return {"codebook_size": model.codebook_size, "grid": (model.grid, model.grid), "image_size": model.resolution}


def _finer(recipe: str, model: DFVQGANConfig) -> dict[str, Any]:
    """Changes of a model for twice as many tokens a side."""
    if model.patch > 1:
        return {"patch": model.patch // 2}
    if len(model.channels) < 3:
        raise InputError(f"--stage1 {recipe} has {len(model.channels)} levels: too few for a finer vocabulary")
    return {"channels": (*model.channels[:-2], model.channels[-1])}


def table1_steps(plan: Plan, row: str) -> list[Step]:
    """List the steps of a row of Table 1; none for a row that is not trained here."""
    row = row.partition(".best-of-")[0]
    if row in ("nuwa", "nuwa-p"):
        return table4_steps(plan, NUWA)
    if row == "glide":
        return plan.diffusion("table1-glide")
    base = table4_steps(plan, "df-vqgan")
    if row in ("nuwa-lip", "nuwa-lip-whole"):
        return base
    if row == "nuwa-lip-finetuned" and plan.finetune_data:
        return plan.finetuned("table1-nuwa-lip-finetuned", base)
    return []


def tokenizer_steps(plan: Plan, row: str) -> list[Step]:
    """List the steps of a row of Table 2 or 3, such as df-vqgan-coarse-1024.

    Partial convolutions have the weights of the VQGAN.
    """
    variant, kind, codes = row.rsplit("-", 2)
    return [plan.tokenizer("vqgan" if variant == "partial" else variant, f"{kind}-{codes}")[0]]


def table4_steps(plan: Plan, row: str) -> list[Step]:
    """List the steps of a row of Table 4."""
    variant = "df-vqgan" if row.startswith("df-vqgan") else "vqgan"
    return plan.stage2_of(f"table4-{row}", variant, PERSPECTIVES[row])


def ratio_steps(plan: Plan, row: str) -> list[Step]:
    """List the steps of a row of the sweep of training holes, such as ratio-40-60."""
    low, high = (int(word) for word in row.split("-")[1:])
    return plan.stage2_of(row, "df-vqgan", PERSPECTIVES["df-vqgan"], ratio=(low, high))
