"""Recipes: each can be built and comes back from its recipe.json; one line for whatever cannot be used."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuwa_lip.commands.train import Options
from nuwa_lip.errors import InputError
from nuwa_lip.models import MPS2SConfig
from nuwa_lip.models.orders import ORDERS
from nuwa_lip.training.recipes import STAGES, Adversary, MPS2SRecipe, Schedule, from_file, lengthened, named, to_json

EVERY = [(stage, name) for stage, (_, group) in STAGES.items() for name in group]


def schedule(**changes: Any) -> Schedule:
    return Schedule(**{**dict(steps=10, batch_size=4, learning_rate=1.0), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("stage", "name"), EVERY)
def test_every_recipe_survives_its_file(stage: str, name: str, tmp_path: Path) -> None:
    recipe = named(stage, name)
    assert isinstance(recipe, STAGES[stage][0])
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(to_json(recipe)))
    assert json.loads(path.read_text())["stage"] == stage
    assert from_file(stage, path) == recipe


def test_changed_fields_of_every_kind_survive_too(tmp_path: Path) -> None:
    recipe = named("dfvqgan", "mini")
    model = dataclasses.replace(recipe.model, connection_weights=(0.5, math.inf), attention_levels=(2,))
    recipe = dataclasses.replace(recipe, model=model, perceptual="vgg16", unquantised=0.25)
    (tmp_path / "a.json").write_text(json.dumps(to_json(recipe)))
    assert from_file("dfvqgan", tmp_path / "a.json") == recipe
    second = named("mps2s", "mini")
    model = dataclasses.replace(second.model, perspectives=("pixels",), text_encoder={"kind": "clip", "layers": [1]})
    second = dataclasses.replace(second, model=model, orders={"random": 2})
    (tmp_path / "b.json").write_text(json.dumps(to_json(second)))
    assert from_file("mps2s", tmp_path / "b.json") == second


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(InputError, match="no dfvqgan recipe is called 'maxi'; there are: mini, mini-sharp, tiny"):
        named("dfvqgan", "maxi")


def set_to(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (set_to("stage", value="mps2s"), "is not a recipe of dfvqgan (its stage is 'mps2s')"),
        (set_to("speed", value=1), "has the unknown field 'speed'"),
        (set_to("schedule", "speed", value=1), "recipe.json: schedule has the unknown field 'speed'"),
        (set_to("schedule", "steps", value=0), "schedule.steps is 0; it must be 1 or more"),
        (set_to("schedule", "steps", value="many"), "schedule: steps is 'many'; it must be int"),
        (set_to("schedule", "steps", value=2.5), "schedule: steps is 2.5; it must be int"),
        (set_to("schedule", "steps", value=True), "schedule: steps is True; it must be int"),
        (
            set_to("schedule", "precision", value="fp17"),
            "precision is 'fp17'; it must be Literal['auto', 'fp32', 'bf16']",
        ),
        (set_to("schedule", "betas", value=[0.9]), "betas is [0.9]; it must be tuple[float, float]"),
        (set_to("model", "channels", value=16), "channels is 16; it must be tuple[int, ...]"),
        (set_to("model", "channels", value=[12]), "channels 12 cannot be divided into 8 groups"),
        (set_to("model", "connection_weights", value=["a"]), "connection_weights is ['a']; it must be"),
        (set_to("model", value=3), "model is 3; it must be an object with fields"),
        (set_to("masks", "ratio", value=[0.9, 0.1]), "mask ratio 0.9..0.1"),
        (set_to("adversary", "filters", value=12), "adversary.filters is 12; it must be a multiple of 8"),
        (lambda content: content["schedule"].pop("steps"), "missing 1 required keyword-only argument: 'steps'"),
    ],
)
def test_files_that_cannot_be_used(change: Callable[[dict[str, Any]], None], says: str, tmp_path: Path) -> None:
    content = json.loads(json.dumps(to_json(named("dfvqgan", "tiny"))))
    change(content)
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as error:
        from_file("dfvqgan", path)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["{", "[1]", "", "\x00"])
def test_files_that_are_no_recipe(content: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(content)
    with pytest.raises(InputError, match="recipe.json") as error:
        from_file("mps2s", path)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="cannot read .*nothing.json: No such file"):
        from_file("mps2s", tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 0}, "schedule.steps is 0"),
        ({"checkpoint_every": 0}, "schedule.checkpoint_every is 0"),
        ({"accumulate": 3}, "batch_size 4 cannot be split into 3 equal parts"),
        ({"warmup": 1.5}, "warmup 1.5"),
        ({"ema": 1.0}, "ema 1.0"),
        ({"learning_rate": 0.0}, "schedule.learning_rate is 0.0; it must be above 0"),
        ({"clip": -1.0}, "schedule.clip is -1.0"),
        ({"seed": -1}, "schedule.seed is -1"),
    ],
)
def test_schedules_that_cannot_be(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        schedule(**changes)


@pytest.mark.parametrize(
    "changes", [{"start": 1.5}, {"weight": -1.0}, {"layers": 0}, {"filters": 0}, {"crop": -1}, {"head_start": 0.4}]
)
def test_adversaries_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(changes.values()))}"):
        Adversary(**changes)


def test_squares_to_judge_that_cannot_be() -> None:
    with pytest.raises(InputError, match="adversary.crop is 24; it must be 0 .* or a multiple of 16"):
        Adversary(kind="projected", crop=24)
    assert Adversary(crop=24).crop == 24
    with pytest.raises(InputError, match="adversary.crop 160 is more than model.resolution 128"):
        dataclasses.replace(named("dfvqgan", "mini"), adversary=Adversary(crop=160))


def test_the_learning_rate_rises_and_falls() -> None:
    made = schedule(steps=20, learning_rate=0.4, warmup=0.2, final_learning_rate=0.1)
    rates = [made.learning_rate_at(step) for step in range(20)]
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
    assert rates[12] == pytest.approx(0.4 * (0.1 + 0.9 / 2)), "half-way between the ends"
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert made.learning_rate_at(20) == pytest.approx(0.04) and 0.04 < rates[-1] < 0.045
    assert schedule(warmup=0.0).learning_rate_at(0) == 1
    assert schedule(steps=3, warmup=1.0).learning_rate_at(2) == 1


@given(
    steps=st.integers(1, 500),
    warmup=st.floats(0, 1),
    final=st.floats(0, 1),
    factor=st.integers(2, 5),
)
@settings(max_examples=60, deadline=None)
def test_the_learning_rate_scales_with_the_steps(steps: int, warmup: float, final: float, factor: int) -> None:
    short, long = (schedule(steps=n, warmup=warmup, final_learning_rate=final) for n in (steps, steps * factor))
    for step in {0, steps // 2, steps - 1}:
        assert min(final, 1 / math.ceil(max(warmup * steps, 1))) - 1e-9 <= short.learning_rate_at(step) <= 1
    done = math.ceil(warmup * steps)  # the moments are shares: a budget that changes the steps moves them
    if done * factor == math.ceil(warmup * steps * factor):
        middle = (done + steps) // 2
        assert short.learning_rate_at(middle) == pytest.approx(long.learning_rate_at(middle * factor))


def test_orders_are_complete_and_checked() -> None:
    recipe = named("mps2s", "tiny")
    assert tuple(recipe.orders) == ORDERS and recipe.orders["raster"] == 1 and sum(recipe.orders.values()) == 1

    def of(**changes: Any) -> MPS2SRecipe:
        return MPS2SRecipe(model=MPS2SConfig.preset("tiny"), schedule=schedule(), **changes)

    assert of(orders={"random": 3.0}).orders == {"raster": 0.0, "random": 3.0, "border": 0.0}
    for orders, says in (
        ({"spiral": 1.0}, "orders names 'spiral'; there are: raster"),
        ({"raster": 0.0}, "one of them must be positive"),
        ({"raster": 2.0, "random": -1.0}, "must not be negative"),
    ):
        with pytest.raises(InputError, match=says):
            of(orders=orders)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_parallel_is_a_share(share: float) -> None:
    with pytest.raises(InputError, match=f"parallel is {share}; it must be a share, 0 to 1"):
        dataclasses.replace(named("mps2s", "tiny"), parallel=share)


def reachable(kind: type) -> set[type]:
    """A dataclass and those of its fields."""
    hints = inspect.get_annotations(kind, eval_str=True) if dataclasses.is_dataclass(kind) else {}
    return {kind, *(found for hint in hints.values() if dataclasses.is_dataclass(hint) for found in reachable(hint))}


@pytest.mark.parametrize(
    "kind", sorted({k for s, _ in STAGES.values() for k in reachable(s)}, key=lambda k: k.__name__) + [Options]
)
def test_every_flag_is_explained(kind: type) -> None:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    for field, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            text = following.value if isinstance(following, ast.Expr) else None
            name = ast.unparse(field.target)
            nested = ast.unparse(field.annotation) in ("DFVQGANConfig", "MPS2SConfig", "Schedule")
            assert nested or isinstance(text, ast.Constant) and isinstance(text.value, str), f"{kind.__name__}.{name}"


def test_every_recipe_says_what_it_is_for() -> None:
    for stage, name in EVERY:
        make = STAGES[stage][1][name]
        assert make.__doc__ or make.__name__ == "<lambda>", name


def test_a_longer_recipe_has_its_points_in_time_where_they_were() -> None:
    recipe = dataclasses.replace(named("dfvqgan", "tiny"), adversary=Adversary(start=0.5, head_start=0.1))
    longer = lengthened(recipe, 2 * recipe.schedule.steps)
    assert longer.schedule.steps == 2 * recipe.schedule.steps and longer.unquantised == recipe.unquantised / 2
    assert (longer.adversary.start, longer.adversary.head_start) == (0.25, 0.05)
    assert longer.schedule.warmup * longer.schedule.steps == recipe.schedule.warmup * recipe.schedule.steps
