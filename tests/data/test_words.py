"""Short captions name what several sentences agree on, rare words first."""

from __future__ import annotations

import pytest

from nuwa_lip.data.words import COMMON, MOST, PLACES, THINGS, short_captions, with_short_captions

SENTENCES = ["A brown dog runs through the snow .", "A dog in a snowy field", "The dogs play", "A man looks on"]


def test_what_two_sentences_name_is_told() -> None:
    assert short_captions(SENTENCES) == [
        "a photo of a dog in the snow",
        "a photo in the snow",
        "a photo of a dog",
    ]


def test_one_sentence_is_not_enough_unless_it_is_asked_for() -> None:
    assert short_captions(SENTENCES[3:]) == []
    assert short_captions(SENTENCES[3:], agreeing=1) == ["a photo of a man"]


def test_parts_of_words_do_not_count() -> None:
    assert short_captions(["a mandolin", "a mandate", "the carpet and the sandwich"], agreeing=1) == []


def test_few_short_captions_stand_beside_the_sentences() -> None:
    many = ["a man, a woman, a boy, a girl, a dog and a ball in a field in the snow"] * 3
    found = with_short_captions(many)
    assert found[:3] == many and len(found) == 3 + MOST
    assert "a photo of a man" not in found, "the commonest word comes last"
    assert with_short_captions(["a photo of a man"]) == ["a photo of a man"]


@pytest.mark.parametrize("phrase", [*THINGS, *PLACES])
def test_every_phrase_is_found_in_itself(phrase: str) -> None:
    pattern = {**THINGS, **PLACES}[phrase]
    example = pattern.replace("?", "").split("|")[0]
    assert any(phrase in caption for caption in short_captions([example], agreeing=1))


def test_common_phrases_are_of_the_list() -> None:
    assert set(COMMON) <= {*THINGS, *PLACES} and len(set(COMMON)) == len(COMMON)
