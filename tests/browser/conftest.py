"""What the browser tests share: Chromium, windows in it, and the built site on a port of this machine."""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser
from window import Window, launch


class Handler(SimpleHTTPRequestHandler):
    """Serve files as any host of static pages does, and keep quiet."""

    protocol_version = "HTTP/1.1"  # connections are kept

    def log_message(self, *_: object) -> None:
        pass


# Not for the session: Playwright's event loop would run on, and `asyncio.run` in the next module of tests would fail.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run Chromium as long as one module of tests needs it."""
    with launch() as browser:
        yield browser


@pytest.fixture(scope="module")
def open_window(browser: Browser) -> Iterator[Callable[..., Window]]:
    """Give a function that opens a window; its options are those of Playwright's `new_context`."""
    with ExitStack() as opened:

        def open_one(**options: Any) -> Window:
            window = Window(browser, **options)
            opened.callback(window.close)
            return window

        yield open_one


@pytest.fixture
def window(browser: Browser) -> Iterator[Window]:
    """Open a window that knows nothing of the ones before."""
    window = Window(browser)
    yield window
    window.close()


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Path], str]]:
    """Give a function that serves a folder on a free port and returns its address."""
    with ExitStack() as serving:

        def start(folder: Path) -> str:
            server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
            server.daemon_threads = True
            serving.callback(server.server_close)
            serving.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            return f"http://127.0.0.1:{server.server_port}"

        yield start
