"""What is wrong with a value in a file is one line that names it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from nuwa_lip.baselines.glide.config import GLIDEConfig
from nuwa_lip.data.augment import Augmentation
from nuwa_lip.data.masks import MaskRecipe
from nuwa_lip.disk import from_json
from nuwa_lip.errors import InputError
from nuwa_lip.models import DFVQGANConfig, MPS2SConfig
from nuwa_lip.sampling import Sampling
from nuwa_lip.training import recipes
from nuwa_lip.training.critics import Adversary
from nuwa_lip.training.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int
    shares: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"size is {self.size}; it must be 1 or more")
        1 / (self.size - 13)


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    way: Literal["here", "there"] = "here"
    weight: float | None = None
    rates: Mapping[str, float] | None = None
    more: dict[str, Any] | None = None
    on: bool = False


def test_a_dataclass_comes_from_json() -> None:
    values = {"inner": {"size": 2, "shares": [1, math.inf], "names": ["a"]}, "weight": 3, "more": {"x": [1]}}
    inner = Inner(size=2, shares=(1, math.inf), names=("a",))
    assert from_json(Outer, values, "it") == Outer(inner=inner, weight=3, more={"x": [1]})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (None, "it is missing; it must be an object with fields"),
        ([1], "it is [1]; it must be an object with fields"),
        ({"inner": 4}, "it: inner is 4; it must be an object with fields"),
        ({}, "it cannot be used: Outer.__init__() missing 1 required keyword-only argument: 'inner'"),
        ({"new": 1}, "it has the unknown field 'new': update nuwa-lip, or remove it"),
        ({"inner": {"size": 1, "new": 1}}, "it: inner has the unknown field 'new': update nuwa-lip, or remove it"),
        ({"inner": {"size": "1"}}, "it: inner: size is '1'; it must be int"),
        ({"inner": {"size": 1.0}}, "it: inner: size is 1.0; it must be int"),
        ({"inner": {"size": True}}, "it: inner: size is True; it must be int"),
        ({"inner": {"size": 0}}, "it: inner cannot be used: size is 0; it must be 1 or more"),
        ({"inner": {"size": 13}}, "it: inner cannot be used: division by zero"),
        ({"inner": {"size": 1, "shares": [1]}}, "it: inner: shares is [1]; it must be tuple[float, float]"),
        ({"inner": {"size": 1, "names": [1]}}, "it: inner: names is [1]; it must be tuple[str, ...]"),
        ({"way": "x"}, "it: way is 'x'; it must be Literal['here', 'there']"),
        ({"weight": "x"}, "it: weight is 'x'; it must be float | None"),
        ({"weight": False}, "it: weight is False; it must be float | None"),
        ({"rates": {"a": "b"}}, "it: rates is {'a': 'b'}; it must be collections.abc.Mapping[str, float] | None"),
        ({"on": 1}, "it: on is 1; it must be bool"),
        ({"more": "x" * 999}, "it: more is '" + "x" * 79 + "; it must be dict[str, Any] | None"),
    ],
)
def test_what_no_dataclass_can_be_made_of_is_named(values: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        from_json(Outer, values, "it")
    assert str(caught.value) == says


CONFIGURATIONS = (
    DFVQGANConfig.preset("tiny"),
    MPS2SConfig.preset("tiny"),
    GLIDEConfig.preset("tiny"),
    Adversary(),
    Augmentation(),
    MaskRecipe(),
    Schedule(steps=1, batch_size=1, learning_rate=1.0),
    recipes.named("dfvqgan", "tiny"),
    recipes.named("mps2s", "tiny"),
    Sampling(top_k=1, top_p=0.5),
)
FINE = {"guidance_scale", "temperature", "num_inference_steps", "top_k", "clip", "seed"}
"""Fields in which huge numbers cost nothing."""


def numbers(config: Any) -> list[str]:
    """The fields that hold numbers."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    values = {name: value[0] if isinstance(value, tuple) and value else value for name, value in values.items()}
    return [name for name, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)]


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=lambda config: type(config).__name__)
def test_no_number_of_any_configuration_grows_without_end(config: Any) -> None:
    fields = set(numbers(config)) - FINE
    assert fields or isinstance(config, Sampling)
    for name in fields:
        several = isinstance(getattr(config, name), tuple)
        for value in (10**12, -(10**12), math.nan, "x", True, [10**12] * 99):
            with pytest.raises(InputError):
                dataclasses.replace(config, **{name: (value, value) if several else value})


@pytest.mark.parametrize("name", ["encoder_blocks", "resolution", "codebook_size"])
def test_a_huge_size_in_a_file_is_one_line(name: str) -> None:
    with pytest.raises(InputError, match=f"it cannot be used: {name} is 1000000000; it must be .* at most"):
        from_json(DFVQGANConfig, {name: 10**9}, "it")


def test_a_ready_made_text_encoder_is_of_a_size_that_there_is() -> None:
    with pytest.raises(InputError, match="text_encoder: num_hidden_layers is 100000; it must be 256 at most"):
        dataclasses.replace(MPS2SConfig.preset("tiny"), text_encoder={"num_hidden_layers": 100_000})
