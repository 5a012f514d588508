"""`nuwa-lip data text-encoder`: a BERT cut to the word pieces of captions."""

from __future__ import annotations

from nuwa_lip.commands.options import Operand, Out, Paths
from nuwa_lip.errors import InputError


def text_encoder(
    source: Operand,
    /,
    *,
    data: Paths,
    out: Out,
    length: int = 64,
    overwrite: bool = False,
) -> None:
    """Make a small copy of a BERT that reads the captions of shards as before, and spells other words by letters.

    Example: nuwa-lip data text-encoder all-MiniLM-L6-v2/ --data shards/ -o minilm/

    Args:
        source: Folder with config.json, model.safetensors and tokenizer.json, as on the hub.
        data: Shards of captioned photos: files, folders, patterns.
        out: Folder for the copy.
        length: Most word pieces of a caption, begin and end included.
        overwrite: Replace the copy in the folder.
    """
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists; give --overwrite to replace what is in it")
    if length < 3:
        raise InputError(f"--length is {length}; it must be 3 or more (begin, a piece, end)")
    from nuwa_lip.data.shards import expand_shards, read_encoded
    from nuwa_lip.data.skipped import Skipped
    from nuwa_lip.data.text_encoder import cut
    from nuwa_lip.data.words import with_short_captions

    skipped = Skipped()
    photos = read_encoded(expand_shards(data), skipped)
    captions = [caption for photo in photos for caption in with_short_captions(photo.captions)]
    skipped.warn()
    kept = cut(source, out, ["", *captions], length)
    size = (out / "model.safetensors").stat().st_size / 2**20
    print(f"{out}: {kept} word pieces of {len(set(captions))} captions, {size:.0f} MiB")
