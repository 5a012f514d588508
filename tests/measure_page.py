"""How fast the page is: its first paint, and a stroke's latency on a photo of 24 megapixels, in headless Chromium.

    python tests/measure_page.py

A stroke's latency is the time from the pointer's event until what it drew can be read from the canvas: the page's own
work and the drawing, without the screen's. Chromium draws here with the CPU; a GPU is quicker. Bars: 1 s, 16 ms.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from running_server import running  # beside this script

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
SIZE = (6000, 4000)
VISITS, EVENTS = 5, 200
DRAW = """([events, button]) => {
  const layer = document.querySelector("#layer"), box = layer.getBoundingClientRect(), times = [];
  const at = (i) => [box.x + box.width * (0.2 + 0.6 * i / events), box.y + box.height * (0.5 + 0.2 * Math.sin(i / 9))];
  const send = (name, i) => {
    const [clientX, clientY] = at(i);
    layer.dispatchEvent(new PointerEvent(name, { clientX, clientY, pointerId: 1, button, buttons: 1, bubbles: true }));
  };
  layer.setPointerCapture = () => {};
  send("pointerdown", 0);
  for (let i = 1; i <= events; i++) {
    const start = performance.now();
    send("pointermove", i);
    const [x, y] = at(i);
    const drawn = layer.getContext("2d").getImageData(Math.round(x - box.x), Math.round(y - box.y), 1, 1);
    times.push(performance.now() - start);
    if (drawn.data[3] > 0 !== (button === 0)) throw new Error(`event ${i} has not been drawn`);
  }
  const start = performance.now();
  send("pointerup", events);
  return { times, up: performance.now() - start };
}"""
PAINT = """() => new Promise((resolve) => {
  const found = (entries) => entries.find((one) => one.name === "first-contentful-paint");
  new PerformanceObserver((list) => found(list.getEntries()) && resolve(found(list.getEntries()).startTime)).observe({
    type: "paint", buffered: true,
  });
})"""


def photo() -> bytes:
    """A JPEG of 24 megapixels with something in it."""
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1] // 20, SIZE[0] // 20, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def shown(name: str, times: list[float]) -> dict[str, float]:
    """Print and return the median and the slow ones, in milliseconds."""
    figures = {f"{name}, {word}": float(np.percentile(times, q)) for word, q in (("median", 50), ("95 %", 95))}
    figures[f"{name}, longest"] = max(times)
    print(json.dumps({key: round(value, 1) for key, value in figures.items()}))
    return figures


def first_paints(browser: Any, address: str) -> list[float]:
    """Visit the page with an empty cache, in milliseconds from the navigation's start."""
    times = []
    for _ in range(VISITS):
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.goto(address)
        times.append(float(page.evaluate(PAINT)))
        page.context.close()
    return times


def strokes(page: Page, buttons: tuple[int, ...] = (0, 2, 0, 0)) -> list[float]:
    """Draw strokes, of which the second one erases, over what is drawn already."""
    times: list[float] = []
    for button in buttons:
        found = page.evaluate(DRAW, [EVENTS, button])
        times += found["times"]
    return times


def main() -> None:
    """Measure both."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        with running(Path("nuwa-lip-mini")) as address:
            shown("first paint, ms", first_paints(browser, address))
            page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
            page.goto(address)
            page.set_input_files("#file", {"name": "large.jpg", "mimeType": "image/jpeg", "buffer": photo()})
            page.wait_for_selector("#drop", state="hidden", timeout=120_000)
            shown("a stroke's event on 24 megapixels, ms", strokes(page))
        browser.close()


if __name__ == "__main__":
    main()
