"""The page in a real browser, with the mouse: photo in, strokes, result back, and nothing outside them changed."""

from __future__ import annotations

import base64
import io
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from nuwa_lip.serving import previews
from nuwa_lip.serving.previews import Previews
from tests.browsers import PHONE, Visits
from tests.running_server import held, running
from tests.serving.test_app import png

PIXELS = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def address(tiny_model: Path) -> Iterator[str]:
    with running(tiny_model) as address:
        yield address


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """Open the page with a photo; in the end the console is empty, and nothing came from elsewhere."""
    visits = Visits(browser)

    def opened(photo: bytes | None = png(PIXELS), **options: Any) -> Page:
        page = visits.open(address, **options)
        if photo is not None:
            page.set_input_files("#file", {"name": "holiday.png", "mimeType": "image/png", "buffer": photo})
            page.wait_for_selector("#drop", state="hidden")
        return page

    yield opened
    visits.close()
    # the browser's own word for a refusal
    assert [text for text in visits.messages if not re.search("status of 4(22|29)", text)] == []
    assert all(url.startswith((address, "blob:")) for url in visits.fetched)


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a point of the photo lies on the screen, fitted into the stage as the page does it."""
    box = page.locator("#layer").bounding_box()
    assert box is not None
    scale = 0.94 * min(box["width"] / 400, box["height"] / 300)
    left, top = box["x"] + (box["width"] - scale * 400) / 2, box["y"] + (box["height"] - scale * 300) / 2
    return left + scale * x, top + scale * y


def drag(page: Page, *points: tuple[float, float], button: Any = "left") -> None:
    page.mouse.move(*place(page, *points[0]))
    page.mouse.down(button=button)
    for point in points[1:]:
        page.mouse.move(*place(page, *point), steps=4)
    page.mouse.up(button=button)


def saved(page: Page, button: str) -> np.ndarray:
    with page.expect_download() as download:
        page.click(button)
    return np.asarray(Image.open(download.value.path()))


def paint(page: Page) -> None:
    page.click("#run")
    page.wait_for_selector("#results button")


def test_a_stroke_is_repainted_and_nothing_else(visit: Visit) -> None:
    page = visit()
    page.fill("#prompt", "a bear")
    before = drawn(page)
    drag(page, (100, 150), (200, 120), (300, 150))
    mask = saved(page, "#save-mask") >= 128
    assert mask.shape[:2] == (300, 400)
    mask = mask[..., 0] if mask.ndim == 3 else mask
    ys, xs = np.nonzero(mask)
    assert abs(xs.min() - 76) <= 2 and abs(xs.max() - 324) <= 2  # the ends, and half of the brush's 48 pixels
    assert abs(ys.min() - 96) <= 6 and abs(ys.max() - 174) <= 2
    paint(page)
    assert page.locator("#results button").count() == 3
    assert page.inner_text("#badge") == f"outside the hole: 0 of {(~mask).sum():,} pixels changed"
    result, shown = saved(page, "#save"), drawn(page)
    assert (result[~mask] == PIXELS[~mask]).all() and (result[mask] != PIXELS[mask]).mean() > 0.5
    page.fill("#slider", "100")
    page.wait_for_function("document.querySelector('#slider').value === '100'")
    page.evaluate("() => new Promise(requestAnimationFrame)")
    assert (drawn(page) == before).all() and (shown != before).any(), "the slider goes from the result to the photo"
    page.click("#accept")
    page.wait_for_selector("#chosen", state="hidden")
    drag(page, (50, 50), (60, 60))
    more = saved(page, "#save-mask")[..., 0] >= 128
    paint(page)
    again = saved(page, "#save")
    assert (again[~more] == result[~more]).all(), "the next painting goes on from the accepted one"


def test_every_tool_draws_what_it_says(visit: Visit) -> None:
    page = visit()

    def area() -> int:
        return int((saved(page, "#save-mask")[..., 0] >= 128).sum())

    page.click("[data-tool=rectangle]")
    drag(page, (100, 100), (200, 150))
    assert abs(area() - 5000) < 400
    drag(page, (150, 100), (200, 150), button="right")
    assert abs(area() - 2500) < 300
    page.keyboard.press("Control+z")
    assert abs(area() - 5000) < 400
    page.keyboard.press("Control+Shift+z")
    assert abs(area() - 2500) < 300
    page.keyboard.press("i")
    assert abs(area() - (400 * 300 - 2500)) < 300
    page.click("#clear")
    assert area() == 0
    page.keyboard.press("q")
    drag(page, (10, 10), (110, 10), (110, 110), (10, 10))
    assert abs(area() - 5000) < 600
    page.click("#clear")
    page.keyboard.press("b")
    for _ in range(8):
        page.keyboard.press("[")
    drag(page, (200, 200), (200, 200))
    small = area()
    page.click("#clear")
    for _ in range(8):
        page.keyboard.press("]")
    drag(page, (200, 200), (200, 200))
    assert 0 < small < area() / 4


def test_pieces_of_a_stroke_show_what_the_whole_shows(visit: Visit) -> None:
    """While it is drawn, only the part of the screen that a piece changes is drawn anew."""
    page = visit()

    def shown() -> np.ndarray:
        address = page.evaluate("document.querySelector('#layer').toDataURL()")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))[..., 3] > 0

    drag(page, (40, 60), (200, 200), (330, 40))
    page.mouse.move(*place(page, 100, 250), steps=5)
    pieces = shown()
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Shift+z")
    page.wait_for_timeout(200)
    whole = shown()
    assert whole.sum() > 5000 and (pieces != whole).sum() < 20


def test_zooming_moves_nothing_in_the_photo(visit: Visit) -> None:
    page = visit()
    page.mouse.move(*place(page, 200, 150))
    page.mouse.wheel(0, -600)
    page.wait_for_timeout(100)
    page.mouse.down()
    page.mouse.up()
    ys, xs = np.nonzero(saved(page, "#save-mask")[..., 0] >= 128)
    assert abs(xs.mean() - 200) < 2 and abs(ys.mean() - 150) < 2 and abs(np.ptp(xs) - 48) <= 3


def test_masks_come_in_and_transparency_is_one(visit: Visit) -> None:
    hole = np.zeros((300, 400), np.uint8)
    hole[40:90, 60:160] = 255
    page = visit()
    page.set_input_files("#mask-file", {"name": "m.png", "mimeType": "image/png", "buffer": png(hole)})
    expect(page.locator("#undo")).to_be_enabled()
    assert ((saved(page, "#save-mask")[..., 0] >= 128) == (hole == 255)).all()
    page.set_input_files("#mask-file", {"name": "m.png", "mimeType": "image/png", "buffer": png(hole[1:])})
    expect(page.locator("#message")).to_contain_text("400x299")
    transparent = visit(png(np.dstack([PIXELS, 255 - hole])))
    expect(transparent.locator("#undo")).to_be_enabled()
    assert ((saved(transparent, "#save-mask")[..., 0] >= 128) == (hole == 255)).all()


def test_the_photo_is_extended(visit: Visit) -> None:
    page = visit()
    page.click("summary")
    page.fill("#extend", "40")
    page.select_option("#side", "left")
    page.click("#extend-button")
    paint(page)
    result = saved(page, "#save")
    assert result.shape == (300, 440, 3) and (result[:, 40:] == PIXELS).all()


def test_what_is_wrong_is_said(visit: Visit) -> None:
    page = visit()
    page.click("#run")
    expect(page.locator("#message")).to_contain_text("Draw over")
    page.set_input_files("#file", {"name": "notes.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(page.locator("#message")).to_contain_text("notes.png")
    drag(page, (100, 150), (200, 120))
    page.click("summary")
    page.fill("#count", "8")
    page.route("**/v1/jobs", lambda route: route.fulfill(status=429, json={"detail": "try again in 3 s"}))
    page.click("#run")
    expect(page.locator("#message")).to_contain_text("try again in 3 s")


def test_a_painting_is_cancelled(visit: Visit) -> None:
    page = visit()
    drag(page, (100, 150), (300, 120))
    with held() as go:
        page.click("#run")
        with page.expect_response(lambda response: response.request.method == "DELETE"):
            page.click("#cancel")
        go.set()
        page.wait_for_selector("#work", state="hidden")
    assert page.locator("#results button").count() == 0 and page.is_enabled("#run")


def test_a_replica_paints_without_jobs(browser: Browser, tiny_model: Path) -> None:
    visits = Visits(browser)
    with running(tiny_model, replica=True) as address:
        page = visits.open(address)
        page.set_input_files("#file", {"name": "holiday.png", "mimeType": "image/png", "buffer": png(PIXELS)})
        page.wait_for_selector("#drop", state="hidden")
        drag(page, (100, 150), (200, 120))
        with held() as go:
            with page.expect_request("**/v1/inpaint"):
                page.click("#run")
            with page.expect_event("requestfailed"):
                page.click("#cancel")
            page.wait_for_selector("#work", state="hidden")
            go.set()
        assert page.locator("#results button").count() == 0 and page.inner_text("#message") == ""
        mask = saved(page, "#save-mask")[..., 0] >= 128
        paint(page)
        assert page.locator("#results button").count() == 3
        result = saved(page, "#save")
        assert (result[~mask] == PIXELS[~mask]).all() and (result[mask] != PIXELS[mask]).any()
        visits.close()
    assert [text for text in visits.messages if "status of 409" not in text] == []


def drawn(page: Page) -> np.ndarray:
    """The photo's canvas, without the mask."""
    url = page.evaluate("document.getElementById('photo').toDataURL()")
    content = base64.b64decode(url.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.int32)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_hole_is_shown_while_it_is_painted(visit: Visit, wanted: bool) -> None:
    page = visit()
    page.click("[data-tool=rectangle]")
    drag(page, (100, 100), (300, 200))
    page.click("summary")
    page.fill("#steps", "6")
    page.fill("#count", "1")
    page.set_checked("#previews", wanted)
    before, go, take = drawn(page), threading.Event(), Previews.take

    def take_one(self: Previews, *words: Any) -> Any:
        assert wanted and (not self._spent or go.wait(60))  # the first one stays until it has been seen
        return take(self, *words)

    with mock.patch.multiple(previews, SHARE=1e9, PAUSE=0.0), mock.patch.object(Previews, "take", take_one):
        page.click("#run")
        if wanted:
            while not (changed := (drawn(page) != before).any(-1)).any():
                page.wait_for_timeout(20)
            box = page.locator("#photo").bounding_box()
            assert box is not None
            (left, top), (right, bottom) = place(page, 100, 100), place(page, 300, 200)
            ys, xs = np.nonzero(changed)
            found = xs.min() + box["x"], ys.min() + box["y"], xs.max() + box["x"], ys.max() + box["y"]
            assert found == pytest.approx((left, top, right, bottom), abs=6), "the hole alone"
        go.set()
        page.wait_for_selector("#results button")


@pytest.mark.parametrize("options", [PHONE, {"viewport": {"width": 1280, "height": 800}}, {"color_scheme": "dark"}])
def test_nothing_is_cut_off_and_everything_has_a_name(visit: Visit, options: dict[str, Any]) -> None:
    page = visit(**options)
    width = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert width <= 0
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, input, select, textarea')].filter(one =>
           !(one.textContent.trim() || one.ariaLabel || one.labels?.length)).map(one => one.outerHTML)"""
    )
    assert nameless == []


def test_a_finger_draws(visit: Visit) -> None:
    page = visit(**PHONE)
    page.touchscreen.tap(*place(page, 200, 150))
    ys, xs = np.nonzero(np.asarray(Image.open(io.BytesIO(mask_of(page))))[..., 0] >= 128)
    assert abs(xs.mean() - 200) < 3 and abs(ys.mean() - 150) < 3


def mask_of(page: Page) -> bytes:
    with page.expect_download() as download:
        page.click("#save-mask")
    assert re.fullmatch(r"holiday_mask\.png", download.value.suggested_filename)
    return Path(download.value.path()).read_bytes()


def test_the_description_of_the_api_is_a_page(visit: Visit, address: str) -> None:
    page = visit(None)
    page.goto(f"{address}/docs")
    page.wait_for_selector("section")
    text = page.inner_text("main")
    for path in ("POST /v1/inpaint", "GET /v1/jobs/{job_id}/events", "POST /api/v1/inpaint", "POST /v1/images/edits"):
        assert path in text
    page.click("summary >> nth=0")
    assert "num_images_per_prompt" in page.inner_text("main")


def test_settings_that_mean_nothing_to_the_model_are_hidden(visit: Visit) -> None:
    page = visit()
    page.click("summary")
    page.fill("#squares", "-1")
    drag(page, (100, 150), (200, 120))
    page.click("#run")
    expect(page.locator("#message")).to_contain_text("squares")
    eraser = {"data": [{"id": "migan", "options": ["blend"]}]}
    page.route("**/v1/models", lambda route: route.fulfill(json=eraser))
    page.reload()
    page.click("summary")
    expect(page.locator("#blend")).to_be_visible()
    for name in ("squares", "guidance", "steps"):
        expect(page.locator(f"#{name}")).to_be_hidden()
