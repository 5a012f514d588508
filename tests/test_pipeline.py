"""The pipeline: known pixels exact, nothing of the hole seen, candidates reproducible."""

import copy
import io
import math
import threading
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from nuwa_lip import pipeline
from nuwa_lip.errors import InputError
from nuwa_lip.fast import cores
from nuwa_lip.models.groups import SCHEDULES
from nuwa_lip.pipeline import InpaintOutput, InpaintPipeline
from nuwa_lip.sampling import candidate_seeds
from tests.small_models import seeded

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
PHOTO = Image.fromarray(PIXELS)
MASK = np.zeros((40, 60), bool)
MASK[15:25, 20:40] = True


def repaint(pipe: InpaintPipeline, **options: Any) -> InpaintOutput:
    given: dict[str, Any] = {"prompt": "a bear", "image": PHOTO, "mask_image": MASK, "generator": seeded()}
    return pipe(**(given | options))


def test_known_pixels_are_exact_and_the_hole_is_painted(tiny_pipe: InpaintPipeline) -> None:
    out = repaint(tiny_pipe)
    (image,) = out.images
    pixels = np.asarray(image)
    assert image.size == PHOTO.size and image.mode == "RGB"
    assert (pixels[~MASK] == PIXELS[~MASK]).all() and (pixels[MASK] != PIXELS[MASK]).mean() > 0.5
    assert len(out.scores) == 1 and -math.log(64) * 3 < out.scores[0] < 0 and out.seeds == [0]
    assert tiny_pipe.resolution == 32 and tiny_pipe.device.type == "cpu"


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.5, 1.0]), st.booleans()
)
def test_any_size_and_mask(
    tiny_pipe: InpaintPipeline, height: int, width: int, seed: int, share: float, blend: bool
) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < share
    mask[rng.integers(height), rng.integers(width)] = True
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    results = []
    for hole in (pixels[mask], 0, 255):
        filled = pixels.copy()
        filled[mask] = hole
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large holes
            results.append(np.asarray(repaint(tiny_pipe, image=filled, mask_image=mask, blend=blend).images[0]))
    assert (results[0][~mask] == pixels[~mask]).all()
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()


@pytest.mark.parametrize("blend", [False, True])
@pytest.mark.parametrize("content", [0.0, 1.0, math.nan, math.inf, -math.inf, 1e30])
def test_whatever_numbers_stand_in_the_hole(tiny_pipe: InpaintPipeline, content: float, blend: bool) -> None:
    values = PIXELS.astype(np.float32) / 255
    clean = repaint(tiny_pipe, image=values, output_type="np", blend=blend).images
    values[MASK] = content
    assert repaint(tiny_pipe, image=values, output_type="np", blend=blend).images.tobytes() == clean.tobytes()


def test_blending_fits_the_colours_at_the_edge(tiny_pipe: InpaintPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = Image.new("RGB", (60, 40), (200, 120, 40))
    plain, blended = (np.asarray(repaint(tiny_pipe, image=flat, blend=b).images[0], float) for b in (False, True))
    casts = [np.abs(p[15, 20:40].mean(0) - (200, 120, 40)).max() for p in (plain, blended)]
    assert casts[0] > 10 and casts[1] < 0.4 * casts[0]
    assert (blended[~MASK] == (200, 120, 40)).all()
    assert (np.asarray(repaint(tiny_pipe, image=flat).images[0]) == plain).all(), "off unless the model says otherwise"
    monkeypatch.setattr(tiny_pipe, "sampling", replace(tiny_pipe.sampling, blend=True))
    assert (np.asarray(repaint(tiny_pipe, image=flat).images[0]) == blended).all()
    grey = repaint(tiny_pipe, image=flat.convert("L"), blend=True).images[0]
    assert grey.mode == "L" and (np.asarray(grey)[~MASK] == np.asarray(flat.convert("L"))[~MASK]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "CMYK", "I;16", "F"])
def test_blending_looks_at_nothing_hidden_in_any_mode(tiny_pipe: InpaintPipeline, mode: str) -> None:
    """Neither at the hole's content nor at colours under full transparency, which here touch the hole."""
    results = []
    for content in (0, 255):
        pixels = PIXELS.copy()
        pixels[MASK] = content
        alpha = np.full(MASK.shape, 255, np.uint8)
        if mode in ("RGBA", "LA"):
            alpha[:, :20] = 0
            pixels[:, :20] = content
        grey = pixels[..., 0]
        photo = {
            "RGBA": lambda p=pixels, a=alpha: Image.fromarray(np.dstack([p, a])),
            "LA": lambda g=grey, a=alpha: Image.fromarray(np.dstack([g, a])),
            "CMYK": lambda p=pixels: Image.fromarray(p).convert("CMYK"),
            "I;16": lambda g=grey: Image.fromarray(g.astype(np.uint16) * 257),
            "F": lambda g=grey: Image.fromarray(g.astype(np.float32) / 255),
        }[mode]()
        results.append(np.asarray(repaint(tiny_pipe, image=photo, blend=True).images[0]))
        assert (results[-1][~MASK] == np.asarray(photo)[~MASK]).all()
    assert (results[0][MASK] == results[1][MASK]).all()


def test_outputs_of_every_type(tiny_pipe: InpaintPipeline) -> None:
    pil = repaint(tiny_pipe, num_images_per_prompt=2)
    array = repaint(tiny_pipe, num_images_per_prompt=2, output_type="np").images
    tensor = repaint(tiny_pipe, num_images_per_prompt=2, output_type="pt").images
    assert array.shape == (2, 40, 60, 3) and array.dtype == np.float32
    assert tensor.shape == (2, 3, 40, 60) and tensor.dtype == torch.float32 and not tensor.is_inference()
    assert (np.rint(array * 255) == np.stack([np.asarray(image) for image in pil.images])).all()
    assert (tensor.permute(0, 2, 3, 1).numpy() == array).all()


def test_inputs_of_every_type_give_the_same(tiny_pipe: InpaintPipeline) -> None:
    expected = np.asarray(repaint(tiny_pipe).images[0])
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    mask = Image.fromarray(MASK)
    for image in (PIXELS, PIXELS / 255, tensor, tensor[None], tensor / 255, [PHOTO]):
        for hole in (mask, MASK, torch.from_numpy(MASK)[None, None], [mask]):
            assert (np.asarray(repaint(tiny_pipe, image=image, mask_image=hole).images[0]) == expected).all()


def test_candidates_come_best_first_each_with_its_seed(tiny_pipe: InpaintPipeline) -> None:
    out = repaint(tiny_pipe, num_images_per_prompt=5, generator=seeded(3))
    assert out.scores == sorted(out.scores, reverse=True) and sorted(out.seeds) == [3, 4, 5, 6, 7]
    assert len({image.tobytes() for image in out.images}) == 5
    for image, score, seed in zip(out.images, out.scores, out.seeds, strict=True):
        alone = repaint(tiny_pipe, generator=seeded(seed))
        assert alone.images[0].tobytes() == image.tobytes() and alone.scores == [score]


def test_a_list_of_generators_has_one_for_each_candidate(tiny_pipe: InpaintPipeline) -> None:
    out = repaint(tiny_pipe, num_images_per_prompt=2, generator=[seeded(9), seeded(4)])
    assert sorted(out.seeds) == [4, 9]
    alone = repaint(tiny_pipe, generator=seeded(4)).images[0]
    assert out.images[out.seeds.index(4)].tobytes() == alone.tobytes()


def test_seeds() -> None:
    assert candidate_seeds(seeded(7), 3) == [[7, 8, 9]]
    assert candidate_seeds(seeded(7), 2, photos=2) == [[7, 8], [7, 8]]
    assert candidate_seeds([seeded(1), seeded(5)], 2, photos=2) == [[1, 5], [1, 5]]
    assert candidate_seeds([seeded(i) for i in range(4)], 2, photos=2) == [[0, 1], [2, 3]]
    assert candidate_seeds(seeded(2**64 - 1), 2) == [[2**64 - 1, 0]]
    torch.manual_seed(0)
    first, second = candidate_seeds(None, 1), candidate_seeds(None, 1)
    assert first != second
    torch.manual_seed(0)
    assert candidate_seeds(None, 1) == first
    with pytest.raises(InputError, match="there are 3 generators for 2 candidates"):
        candidate_seeds([seeded(i) for i in range(3)], 2)


def test_separate_holes_are_windows_of_their_own(tiny_pipe: InpaintPipeline, monkeypatch: Any) -> None:
    pixels = RNG.integers(0, 256, (50, 200, 3), dtype=np.uint8)
    mask = np.zeros((50, 200), bool)
    mask[10:20, 10:20] = mask[30:40, 170:190] = True
    seen = []
    look = pipeline.look
    monkeypatch.setattr(pipeline, "look", lambda *given: seen.append(given[2]) or look(*given))
    both = repaint(tiny_pipe, image=pixels, mask_image=mask)
    assert len(seen) == 2
    painted = np.asarray(both.images[0])
    assert (painted[~mask] == pixels[~mask]).all() and (painted[mask] != pixels[mask]).mean() > 0.5
    first = mask.copy()
    first[:, 100:] = False
    alone = np.asarray(repaint(tiny_pipe, image=pixels, mask_image=first).images[0])
    assert (alone[first] == painted[first]).all(), "what is far away changes nothing"


def test_equal_windows_are_not_painted_equally(tiny_pipe: InpaintPipeline) -> None:
    mask = np.zeros((64, 256), bool)
    mask[24:40, 24:40] = mask[24:40, 152:168] = True
    photo = np.full((64, 256, 3), 90, np.uint8)
    out = np.asarray(repaint(tiny_pipe, image=photo, mask_image=mask).images[0])
    assert (out[24:40, 24:40] != out[24:40, 152:168]).any()


def test_several_photos_at_once(tiny_pipe: InpaintPipeline) -> None:
    other = RNG.integers(0, 256, (33, 47, 4), dtype=np.uint8)
    masks = [MASK, np.ones((33, 47), bool)]
    out = repaint(
        tiny_pipe,
        prompt=["a bear", ""],
        image=[PHOTO, other],
        mask_image=masks,
        num_images_per_prompt=2,
    )
    assert [image.size for image in out.images] == [(60, 40), (60, 40), (47, 33), (47, 33)]
    alone = repaint(tiny_pipe, num_images_per_prompt=2)
    assert [image.tobytes() for image in out.images[:2]] == [image.tobytes() for image in alone.images]
    batch = repaint(tiny_pipe, image=np.stack([PIXELS, PIXELS]), prompt="a bear", output_type="np")
    assert batch.images.shape == (2, 40, 60, 3)


@pytest.mark.parametrize("output_type", ["np", "pt"])
def test_photos_that_cannot_be_one_array_are_refused_before_the_work(
    tiny_pipe: InpaintPipeline, output_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_pipe, "_repaint", lambda *_: pytest.fail("there was work"))
    for other, says in (
        (PHOTO.crop((0, 0, 47, 33)), "60x40 RGB, 47x33 RGB"),
        (PHOTO.convert("L"), "60x40 RGB, 60x40 L"),
    ):
        with pytest.raises(
            InputError, match=f"several sizes or modes cannot be one array: {says}; use output_type='pil'"
        ) as e:
            repaint(tiny_pipe, image=[PHOTO, other], mask_image=None, output_type=output_type)
        assert "\n" not in str(e.value)


def test_a_bad_mask_of_a_later_photo_is_told_before_the_work(
    tiny_pipe: InpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_pipe, "_repaint", lambda *_: pytest.fail("there was work"))
    with pytest.raises(InputError, match="empty"):
        repaint(tiny_pipe, image=[PHOTO, PHOTO], mask_image=[MASK, Image.new("L", PHOTO.size)])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_results_are_upright(tiny_pipe: InpaintPipeline, orientation: int) -> None:
    turned = PHOTO.copy()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Make] = orientation, "ACME"
    turned.info |= {"exif": exif.tobytes(), "icc_profile": b"a profile", "dpi": (300, 150)}
    seen = ImageOps.exif_transpose(turned)
    mask = np.zeros((seen.height, seen.width), bool)
    mask[15:25, 20:30] = True
    given: dict[str, Any] = {"image": turned, "mask_image": mask, "mask_orientation": "displayed"}
    image = repaint(tiny_pipe, **given).images[0]
    array = repaint(tiny_pipe, **given, output_type="np").images[0]
    assert image.size == seen.size and (np.rint(array * 255) == np.asarray(image)).all()
    assert (np.asarray(image)[~mask] == np.asarray(seen)[~mask]).all()
    file = io.BytesIO()  # as the README saves it
    image.save(file, "PNG", **{name: image.info[name] for name in ("exif", "dpi")})
    again = Image.open(file)
    assert again.getexif().get(ExifTags.Base.Orientation, 1) == 1 and again.getexif()[ExifTags.Base.Make] == "ACME"
    assert again.info["icc_profile"] == b"a profile", "Pillow takes it from the picture itself"
    assert np.allclose(again.info["dpi"], (300, 150) if orientation < 5 else (150, 300), atol=0.1)


def test_a_mask_may_lie_as_a_turned_photo_is_stored(tiny_pipe: InpaintPipeline) -> None:
    turned = PHOTO.copy()
    turned.getexif()[ExifTags.Base.Orientation] = 3
    seen = MASK.copy()
    seen[:5, :5] = True
    stored = repaint(tiny_pipe, image=turned, mask_image=seen[::-1, ::-1], mask_orientation="stored")
    displayed = repaint(tiny_pipe, image=turned, mask_image=seen, mask_orientation="displayed")
    assert stored.images == displayed.images
    with pytest.warns(UserWarning, match="fits both ways: it is taken as the photo is displayed.*'stored'"):
        assert repaint(tiny_pipe, image=turned, mask_image=seen).images == displayed.images


def test_the_caption_and_the_guidance_matter(tiny_pipe: InpaintPipeline) -> None:
    def painted(**options: Any) -> tuple[bytes, float]:
        out = repaint(tiny_pipe, **options)
        return out.images[0].tobytes(), out.scores[0]

    plain = painted()
    assert painted(prompt="the sea")[1] != plain[1]
    assert painted(guidance_scale=5000.0)[0] != plain[0] and painted(guidance_scale=1.0) == plain
    nothing = painted(prompt="", guidance_scale=5000.0)
    assert nothing[0] == painted(prompt="")[0], "nothing to be guided towards"
    assert painted(temperature=0.0) == painted(temperature=0.0, generator=seeded(5)) != plain
    assert painted(top_k=1) == painted(temperature=0.0) and painted(top_k=0) == plain


def test_order_and_steps_and_progress(tiny_pipe: InpaintPipeline) -> None:
    calls: list[tuple[Any, ...]] = []
    repaint(tiny_pipe, callback_on_step_end=lambda *given: calls.append(given))
    assert [given[1:3] for given in calls] == [(1, 2), (2, 2)] and calls[0][0] is tiny_pipe
    calls.clear()
    for order in ("raster", "random", "border"):
        repaint(tiny_pipe, order=order, num_inference_steps=1000, callback_on_step_end=lambda *g: calls.append(g))
    tokens = calls[0][2]
    assert len(calls) == 3 * tokens and tokens > 2


def test_the_schedule_matters(tiny_pipe: InpaintPipeline) -> None:
    scores = {s: repaint(tiny_pipe, num_inference_steps=3, schedule=s).scores[0] for s in SCHEDULES}
    assert len(set(scores.values())) == len(SCHEDULES), scores


@pytest.mark.parametrize("small", [False, True])
def test_small_models_decode_on_one_core_in_a_new_thread_too(
    tiny_pipe: InpaintPipeline, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(cores, "SMALL", cores.SMALL if small else 0)
    within: list[int] = []
    after: list[int] = []

    def first() -> None:
        repaint(tiny_pipe, callback_on_step_end=lambda *_: within.append(torch.get_num_threads()))
        after.append(torch.get_num_threads())

    try:
        first()
        with cores._changing:  # the moment in which a new thread would begin with one core
            torch.set_num_threads(1)
            late = threading.Thread(target=first)
            late.start()
            late.join(0.3)
            torch.set_num_threads(2)
        late.join()
        assert set(within) == {1 if small else 2} and after == [2, 2]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("mps2s.embedding.weight", "numbers that are not finite"),
        ("mps2s.decoder.norm.weight", "numbers that are not finite"),
        ("dfvqgan.encoder.conv_out.bias", "numbers that are not finite"),
        ("dfvqgan.last_layer", "pixels that are not finite"),
        ("dfvqgan.quantiser.codebook", "not finite"),
    ],
)
def test_weights_that_are_no_numbers_paint_nothing(
    tiny_pipe: InpaintPipeline, place: str, says: str, number: float
) -> None:
    pipe = copy.deepcopy(tiny_pipe)
    part = pipe
    for name in place.split("."):
        part = getattr(part, name)
    part.fill_(number)
    with pytest.raises(InputError, match=says) as caught:
        repaint(pipe)
    assert "\n" not in str(caught.value)


def test_the_context_can_be_chosen(tiny_pipe: InpaintPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = []
    look = pipeline.look
    monkeypatch.setattr(pipeline, "look", lambda *given: windows.append(given[2]) or look(*given))
    repaint(tiny_pipe, padding_mask_crop=3)
    assert [(window.height, window.width) for window in windows] == [(26, 26)]


def test_a_hole_that_is_enlarged_much_is_announced(tiny_pipe: InpaintPipeline) -> None:
    photo = np.zeros((100, 100, 3), np.uint8)
    with pytest.warns(UserWarning, match="enlarged 3.1 times and may look soft"):
        repaint(tiny_pipe, image=photo, mask_image=np.ones((100, 100), bool))


def test_a_prompt_that_is_too_long_is_cut_with_a_warning(tiny_pipe: InpaintPipeline) -> None:
    with pytest.warns(UserWarning, match="cut after '... "):
        repaint(tiny_pipe, prompt="zebra " * 200)


def test_the_transparent_part_is_the_mask_where_there_is_none(tiny_pipe: InpaintPipeline) -> None:
    rgba = np.dstack([PIXELS, np.where(MASK, 0, 255).astype(np.uint8)])
    out = np.asarray(repaint(tiny_pipe, image=rgba, mask_image=None).images[0])
    assert (out[..., 3] == 255).all() and (out[~MASK] == rgba[~MASK]).all()
    assert (out[..., :3] == np.asarray(repaint(tiny_pipe).images[0])).all()


def test_clip_can_rank(tiny_pipe: InpaintPipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    plain = repaint(tiny_pipe, num_images_per_prompt=3)
    merits = [0.1, 0.3, 0.2]
    asked = []
    monkeypatch.setattr(tiny_pipe, "clip", tmp_path / "nowhere")
    with pytest.raises(InputError, match="CLIP's weights"):
        repaint(tiny_pipe, rank="clip")
    monkeypatch.setattr(pipeline, "load_clip", lambda name: None)
    monkeypatch.setattr(pipeline, "clip_scores", lambda images, *given: asked.append(given) or merits)
    ranked = repaint(tiny_pipe, num_images_per_prompt=3, rank="clip")
    assert ranked.seeds == [1, 2, 0] and asked == [("a bear", tiny_pipe.clip)]
    assert ranked.scores == [plain.scores[plain.seeds.index(seed)] for seed in ranked.seeds]
