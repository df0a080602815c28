"""A browser window as the tests use it: it notes what a page complains about and what it asks other hosts for."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

Mode = Literal["light", "dark"]

WAIT = 30_000  # milliseconds at most, on a busy machine
expect.set_options(timeout=WAIT)

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no other host exists
]
OWN = ("http://127.0.0.1:", "file:", "data:", "blob:", "about:")
AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")

# The contrast of text with what is behind it follows from the mode and from the classes and styles of what is around
# it. Measuring it is slow: what shares them with text seen before, on this page or another, is left out.
MARK_REPEATS = """(mode) => {
    const seen = new Set(JSON.parse(sessionStorage.getItem("seen") || "[]"));
    const repeats = (element, path) => {
        path += `>${element.tagName}|${element.getAttribute("class")}|${element.getAttribute("style")}`;
        const parts = [...element.children].map((child) => repeats(child, path));
        const repeat = seen.has(path) && parts.every(Boolean);
        element.toggleAttribute("data-repeat", repeat);
        seen.add(path);
        return repeat;
    };
    for (const element of document.body.children) repeats(element, mode);
    for (const inner of document.querySelectorAll("[data-repeat] [data-repeat]")) inner.removeAttribute("data-repeat");
    sessionStorage.setItem("seen", JSON.stringify([...seen]));
}"""
CONTRAST = """axe.run(
    { exclude: ["[data-repeat]"] }, { preload: false, resultTypes: ["violations"], runOnly: ["color-contrast"] }
).then(({ violations }) => violations)"""
ALL_OTHERS = """axe.run(
    { preload: false, resultTypes: ["violations"], rules: { "color-contrast": { enabled: false } } }
).then(({ violations }) => violations)"""


@contextmanager
def launch() -> Iterator[Browser]:
    """Start Chromium without showing it; end it with the block."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.fail("the browser tests need Chromium: apt-get install chromium", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        yield browser
        browser.close()


class Window:
    """A window with a page in it, and a list of what went wrong since it was last asked."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        usual = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", "color_scheme": "light"}
        self._context = browser.new_context(**(usual | options))
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(WAIT)
        self._complaints: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self._note(f"script: {error}"))
        self.page.on("request", lambda request: request.url.startswith(OWN) or self._note(f"other host: {request.url}"))
        self.page.on("requestfailed", lambda request: self._note(f"failed: {request.url}: {request.failure}"))
        self.page.on("response", lambda answer: answer.status >= 400 and self._note(f"{answer.status}: {answer.url}"))

    def _heard(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self._note(f"console: {said.text} ({said.location['url']})")

    def _note(self, complaint: str) -> None:
        self._complaints.append(complaint)

    def close(self) -> None:
        self._context.close()

    def complaints(self) -> list[str]:
        """Return errors, failed requests and requests to other hosts since the last call."""
        noted, self._complaints = self._complaints, []
        return noted

    def prefer(self, mode: Mode) -> None:
        """Choose light or dark as the system's setting does."""
        self.page.emulate_media(color_scheme=mode)

    def violations(self, mode: Mode) -> list[str]:
        """Return what axe-core finds serious or critical, in the mode that is on; only contrast is looked at twice."""
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(AXE)
        self.page.evaluate(MARK_REPEATS, mode)
        found = self.page.evaluate(CONTRAST)
        if mode == "light":
            found += self.page.evaluate(ALL_OTHERS)
        return [
            f"{each['id']} ({mode}): {node['target'][-1]}: {node['failureSummary'].splitlines()[-1].strip()}"
            for each in found
            if each["impact"] in ("serious", "critical")
            for node in each["nodes"]
        ]

    def width(self, window: int) -> int:
        """Return how wide the page is in a window so wide."""
        before = self.page.viewport_size
        self.page.set_viewport_size({"width": window, "height": 844})
        try:
            return int(self.page.evaluate("document.scrollingElement.scrollWidth"))
        finally:
            self.page.set_viewport_size(before or {"width": 1280, "height": 900})
