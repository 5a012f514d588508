"""What a call of the pipeline is given: whatever cannot be used is named, whatever changes nothing is taken."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nuwa_lip import arguments
from nuwa_lip.errors import InputError
from nuwa_lip.images.photo import as_photo
from nuwa_lip.pipeline import InpaintPipeline

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
MASK = np.zeros((40, 60), bool)
MASK[15:25, 20:40] = True


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def repaint(pipe: InpaintPipeline, **options: Any) -> bytes:
    given: dict[str, Any] = {"prompt": "a bear", "image": PHOTO, "mask_image": MASK, "generator": seeded()}
    return pipe(**(given | options)).images[0].tobytes()


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
        ({"num_images_per_prompt": "3"}, "num_images_per_prompt is '3'"),
        ({"num_images_per_prompt": 2.0}, "num_images_per_prompt is 2.0"),
        ({"num_images_per_prompt": True}, "num_images_per_prompt is True"),
        ({"padding_mask_crop": 0.5}, "padding_mask_crop is 0.5"),
        ({"padding_mask_crop": "3"}, "padding_mask_crop is '3'"),
        ({"output_type": np.zeros(3)}, "output_type is array([0., 0., 0.])"),
        ({"rank": None}, "rank is None"),
        ({"callback_on_step_end": "print"}, "callback_on_step_end is 'print'"),
        ({"height": np.zeros(3)}, "height is array([0., 0., 0.])"),
        ({"strength": "much"}, "strength is 'much'"),
        ({"blend": "off"}, "blend is 'off'"),
        ({"num_images_per_prompt": 10**30}, "it must be a whole number, 1 to 100,000"),
        ({"composite": "no"}, "composite is 'no'"),
        ({"mask_orientation": np.zeros(2)}, "orientation is array([0., 0.])"),
        ({"mask_image": MASK.astype("U1")}, "mask_image has type <U1"),
        ({"mask_image": torch.from_numpy(MASK).to_sparse()}, "mask_image is a tensor that cannot be read"),
        ({"image": torch.zeros(3, 40, 60, device="meta")}, "image is a tensor that cannot be read"),
        ({"image": None}, "image is NoneType"),
        ({"image": []}, "0 images"),
        ({"mask_image": "mask.png"}, "mask_image is str"),
        ({"mask_orientation": "upright"}, "orientation is 'upright'"),
        ({"mask_orientation": 6}, "orientation is 6"),
        ({"padding_mask_crop": -1}, "padding_mask_crop is -1"),
        ({"output_type": "latent"}, "output_type is 'latent'"),
        ({"rank": "best"}, "rank is 'best'"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"order": "spiral"}, "order 'spiral'"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"prompt": None}, "prompt is NoneType"),
        ({"prompt": ["a", 5]}, "prompt is int"),
        ({"image": [PHOTO] * 3, "mask_image": [MASK] * 2}, "3 images, 2 masks and 1 prompts"),
        ({"image": "photo.jpg"}, "image is str"),
        ({"mask_image": np.zeros((40, 60), bool)}, "nothing to repaint"),
        ({"mask_image": MASK[1:]}, "60x39, the photo 60x40"),
        ({"mask_image": MASK * 255.0}, "from 0 to 255"),
        ({"generator": 3}, "generator is 3"),
        ({"generator": [seeded()] * 3}, "3 generators for 1 candidates"),
        ({"height": 512}, "height is 512"),
        ({"width": 512}, "width is 512"),
        ({"strength": 0.5}, "strength is 0.5"),
        ({"negative_prompt": "blurry"}, "negative_prompt is 'blurry'"),
    ],
)
def test_bad_arguments_are_named(tiny_pipe: InpaintPipeline, options: dict[str, Any], shown: str) -> None:
    with pytest.raises(InputError) as caught:
        repaint(tiny_pipe, **options)
    assert shown in str(caught.value) and "\n" not in str(caught.value)


def test_what_diffusers_takes_by_default_changes_nothing(tiny_pipe: InpaintPipeline) -> None:
    given = {"height": None, "width": None, "strength": 1.0, "negative_prompt": ""}
    assert repaint(tiny_pipe, **given) == repaint(tiny_pipe)


TWO = [PHOTO, PHOTO.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
BOTH = np.stack([MASK, ~MASK])


@pytest.mark.parametrize(
    "masks",
    [
        BOTH,
        BOTH.astype(np.float32),
        BOTH.astype(np.uint8) * 255,
        torch.from_numpy(BOTH),
        torch.from_numpy(BOTH).half(),
        torch.from_numpy(BOTH.astype(np.uint8) * 255),
        torch.from_numpy(BOTH)[:, None],
        BOTH[:, None].swapaxes(1, 2).swapaxes(2, 3),
        list(BOTH),
        [Image.fromarray(one) for one in BOTH],
        (MASK, Image.fromarray(~MASK)),
    ],
)
def test_n_masks_beside_n_photos_are_one_for_each(masks: Any) -> None:
    for photos in (TWO, np.stack([np.asarray(photo) for photo in TWO])):
        tasks = arguments.read_tasks(photos, masks, "", "pil")
        assert all((task.hole.mask == mask).all() for task, mask in zip(tasks, BOTH, strict=True))


def test_one_mask_serves_several_photos_and_other_numbers_are_refused_with_the_shapes() -> None:
    rgb = np.repeat(MASK[..., None], 3, -1)
    for one in (MASK, MASK[None], torch.from_numpy(MASK)[None], rgb):
        assert all((task.hole.mask == MASK).all() for task in arguments.read_tasks(TWO, one, "", "pil"))
    for several in (torch.from_numpy(np.stack([MASK] * 3)), np.stack([MASK] * 5)):
        shape = rf"mask_image has shape \[{len(several)}, 40, 60\] beside 2 images: give \[2, H, W\]"
        with pytest.raises(InputError, match=shape):
            arguments.read_tasks(TWO, several, "", "pil")
    tasks = arguments.read_tasks(TWO * 2, torch.from_numpy(np.stack([MASK, ~MASK] * 2)), "", "pil")
    assert [bool(task.hole.mask[0, 0]) for task in tasks] == [False, True] * 2, "not the channels of one mask"


def test_one_of_a_kind_serves_all() -> None:
    tasks = arguments.read_tasks([PHOTO, PHOTO], MASK, ["a bear", "the sea"], "np")
    assert [task.prompt for task in tasks] == ["a bear", "the sea"]
    batch = arguments.read_tasks(np.stack([PHOTO, PHOTO]), [MASK, ~MASK], "", "pil")
    assert [task.hole.mask[0, 0] for task in batch] == [False, True] and {task.prompt for task in batch} == {""}
    one = arguments.read_tasks(PHOTO, [MASK, ~MASK], "", "pil")
    assert (one[0].photo.pixels == one[1].photo.pixels).all() and len(one) == 2


def test_results_of_every_type() -> None:
    photo = as_photo(PHOTO)
    pil, array, tensor = (arguments.output(photo, photo.pixels, kind) for kind in ("pil", "np", "pt"))
    assert (np.asarray(pil) == photo.pixels).all()
    assert (array == photo.pixels / np.float32(255)).all() and (tensor.permute(1, 2, 0).numpy() == array).all()
    assert arguments.gather([pil], "pil") == [pil] and arguments.gather([array] * 2, "np").shape == (2, 40, 60, 3)
    assert arguments.gather([tensor] * 2, "pt").shape == (2, 3, 40, 60)
