"""Pages in a real browser: what several tests open, listen to and close."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
PHONE = {"viewport": {"width": 375, "height": 667}, "is_mobile": True, "has_touch": True}


class Visits:
    """Pages that a test opens, each in a context of its own; what they say in the console and what they fetch."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.contexts: list[BrowserContext] = []
        self.messages: list[str] = []
        self.fetched: list[str] = []

    def open(self, url: str, first: str = "// nothing", **options: Any) -> Page:
        """Open a page like somebody new, after the script `first`."""
        context = self.browser.new_context(**options)
        context.set_default_timeout(60_000)  # a slow machine is no failure
        context.add_init_script(first)
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.on("request", lambda request: self.fetched.append(request.url))
        page.goto(url)
        return page

    def close(self) -> None:
        for context in self.contexts:
            context.close()
