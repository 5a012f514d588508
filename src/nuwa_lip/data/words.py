"""Short captions of fixed form for photos that have sentences: what is there, and where.

Sentences by people all look alike to a small model; that a photo shows a dog in the snow is told by two of their
words. The words are a closed list, each named in 150 photos or more of Flickr8k's training part, so that a small
training can learn them: they are what the bundled model understands of sentences.
"""

import re
from collections.abc import Sequence

MOST = 5
"""Short captions of a photo, the rarest words first, so that common ones do not crowd out the others."""
AGREEING = 2
"""Captions of a photo that must name a word."""

SENTENCES = 3
"""Captions that a photo has at least to be given short ones: only several sentences can agree on what is there."""

THINGS = {
    "a ball": "ball|football|basketball|baseball|tennis|soccer",
    "a bicycle": "bicycles?|bikes?|cyclists?|bikers?",
    "a boy": "boys?",
    "a building": "buildings?|house",
    "a car": "cars?|vehicles?|trucks?",
    "a child": "child|children|kids?|toddlers?|baby",
    "a crowd": "crowds?|audience",
    "a dog": "dogs?|puppy|puppies",
    "a black dog": "black dogs?",
    "a brown dog": "brown dogs?|tan dogs?",
    "a white dog": "white dogs?",
    "a girl": "girls?",
    "a group of people": "people|group",
    "a hat": "hats?|caps?|helmets?",
    "a jacket": "jackets?|coats?",
    "a man": "man|men|guys?",
    "a woman": "woman|women|lady|ladies",
    "a red shirt": "red shirts?|red t-shirt|in red",
    "a blue shirt": "blue shirts?|blue t-shirt|in blue",
    "a skateboard": "skateboards?|skateboarders?|skateboarding",
    "a team": "team|players?|game",
    "a tree": "trees?",
}
"""Phrase → the words that mean it, as a regular expression."""
PLACES = {
    "at the beach": "beach|shore|sand|sandy",
    "in a field": "fields?|meadow|pasture",
    "in the city": "city|sidewalk",
    "in the forest": "woods|forest|wooded",
    "in the grass": "grass|grassy|lawn",
    "in the mountains": "mountains?|hills?|cliffs?|hillside|mountainside",
    "in the pool": "pool|swimming pool",
    "in the snow": "snow|snowy|ski|skis|skiing|skier|snowboard|snowboarder|sled",
    "in the street": "streets?|road",
    "in the water": "water|lake|river|ocean|sea|waves?|surf|surfer|surfing|surfboard",
    "on dirt": "dirt|dirty|mud|muddy|trail|path",
    "on rocks": "rocks?|rocky",
}


def short_captions(captions: Sequence[str], agreeing: int = AGREEING) -> list[str]:
    """Short captions of a photo that has sentences, at most `MOST`: things, places, and the rarest of both.

    Args:
        captions: sentences of one photo.
        agreeing: how many of them must name a word.
    """
    things, places = (_named(captions, words, agreeing) for words in (THINGS, PLACES))
    pairs = [f"{thing} {place}" for thing in things[:2] for place in places[:1]]
    alone = [f"a photo {place}" for place in places] + [f"a photo of {thing}" for thing in things]
    return ([f"a photo of {pair}" for pair in pairs] + alone)[:MOST]


def with_short_captions(captions: Sequence[str]) -> list[str]:
    """A photo's captions and, if they are sentences (`SENTENCES` or more), its short ones."""
    return [*captions, *(short_captions(captions) if len(captions) >= SENTENCES else [])]


def _named(captions: Sequence[str], words: dict[str, str], agreeing: int) -> list[str]:
    """The phrases that enough captions name, rarest first."""
    found = [
        phrase
        for phrase, pattern in words.items()
        if sum(re.search(rf"\b(?:{pattern})\b", caption, re.IGNORECASE) is not None for caption in captions) >= agreeing
    ]
    return sorted(found, key=lambda phrase: COMMON.index(phrase) if phrase in COMMON else -1)


COMMON = (
    "in the mountains",
    "a hat",
    "a building",
    "in the street",
    "in a field",
    "in the grass",
    "in the water",
    "a ball",
    "a child",
    "a girl",
    "a boy",
    "a woman",
    "a group of people",
    "a dog",
    "a man",
)
"""The most common phrases, the commonest last."""
