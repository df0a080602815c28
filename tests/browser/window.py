"""A browser window as the tests use it: it notes what a page complains about and what it asks other hosts for."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

Mode = Literal["light", "dark"]

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

# Code and tables repeat the same few styles thousands of times: axe looks at each style once a page.
MARK_REPEATS = """() => {
    const seen = new Set();
    for (const element of document.querySelectorAll("code span, td, th")) {
        const style = [element.tagName, element.parentElement.className, element.className, element.style.cssText];
        element.toggleAttribute("data-repeat", seen.has(style.join("|")));
        seen.add(style.join("|"));
    }
}"""
RUN_AXE = """async ([mode]) => {
    const options = { preload: false, resultTypes: ["violations"] };
    if (mode === "dark") options.runOnly = ["color-contrast"];
    const { violations } = await axe.run({ exclude: ["[data-repeat]"] }, options);
    return violations.filter(({ impact }) => impact === "serious" || impact === "critical");
}"""


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
        self._context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", "color_scheme": "light"} | options
        )
        self.page: Page = self._context.new_page()
        self._complaints: list[str] = []
        self.page.on("console", lambda said: said.type in ("error", "warning") and self._note(f"console: {said.text}"))
        self.page.on("pageerror", lambda error: self._note(f"script: {error}"))
        self.page.on("request", lambda request: request.url.startswith(OWN) or self._note(f"other host: {request.url}"))
        self.page.on("requestfailed", lambda request: self._note(f"failed: {request.url}: {request.failure}"))
        self.page.on("response", lambda answer: answer.status >= 400 and self._note(f"{answer.status}: {answer.url}"))

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
        """Return what axe-core finds serious or critical: every rule in light mode, contrast alone in dark mode."""
        self.page.evaluate(AXE)
        self.page.evaluate(MARK_REPEATS)
        found = self.page.evaluate(RUN_AXE, [mode])
        return [
            f"{each['id']} ({mode}): {node['target'][-1]}: {node['failureSummary'].splitlines()[-1].strip()}"
            for each in found
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
