"""The built site in a browser: every page as it opens, for everyone, and the ways of a reader through it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect
from window import Mode, Window

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = "decisions/economics.html"


@dataclass
class Visit:
    """What one look at one page showed."""

    complaints: list[str]
    violations: list[str]
    width: int


@pytest.fixture(scope="module")
def home(site: Path, serve: Callable[[Path], str]) -> str:
    """Serve the site; give the address of its first page."""
    return f"{serve(site)}/index.html"


@pytest.fixture(scope="module")
def visits(
    site: Path,
    serve: Callable[[Path], str],
    open_window: Callable[..., Window],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Visit]:
    """Open every page once, under a path of a host as project pages are, and look at it in every way."""
    host = tmp_path_factory.mktemp("host")
    (host / "some").mkdir()
    (host / "some" / "path").symlink_to(site)
    address = serve(host)
    window = open_window()
    seen = {}
    for name in sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html")):
        window.prefer("light")
        window.page.goto(f"{address}/some/path/{name}")
        violations = window.violations("light")
        prefer(window, "dark")
        violations += window.violations("dark")
        seen[name] = Visit(window.complaints(), violations, window.width(390))
    return seen


def is_dark(page: Page) -> bool:
    return "quarto-dark" in (page.locator("html").get_attribute("class") or "")


def prefer(window: Window, mode: Mode) -> None:
    """Choose a mode in the system's settings, and wait until the site has followed."""
    window.prefer(mode)
    window.page.wait_for_function(
        "dark => document.documentElement.matches('.quarto-dark') === dark", arg=mode == "dark"
    )


def unfold(page: Page, link: Locator) -> None:
    """Open the sections of the sidebar around a link, from the outside in."""
    for section in link.locator("xpath=ancestor::ul[contains(@class, 'sidebar-section')]").all():
        if not section.is_visible():
            page.locator(f'button[data-bs-target="#{section.get_attribute("id")}"]').last.click()
            expect(section).to_be_visible()


def focused(page: Page) -> str:
    """Say what has the keyboard: its text, label or place."""
    return str(
        page.evaluate(
            "() => { const e = document.activeElement;"
            " return (e.innerText || e.getAttribute('aria-label') || e.title || e.tagName).trim() }"
        )
    )


def test_tour_sees_every_chapter(visits: dict[str, Visit]) -> None:
    notebooks = (path.relative_to(ROOT / "nbs") for path in (ROOT / "nbs").rglob("*.ipynb"))
    chapters = {path.with_suffix(".html").as_posix() for path in notebooks if ".ipynb_checkpoints" not in path.parts}
    assert chapters <= visits.keys()


def test_pages_open_without_complaint_or_other_host(visits: dict[str, Visit]) -> None:
    assert {name: visit.complaints for name, visit in visits.items() if visit.complaints} == {}


def test_pages_are_accessible_in_light_and_dark(visits: dict[str, Visit]) -> None:
    assert {name: visit.violations for name, visit in visits.items() if visit.violations} == {}


def test_pages_fit_a_telephone(visits: dict[str, Visit]) -> None:
    assert {name: visit.width for name, visit in visits.items() if visit.width > 390} == {}


@pytest.mark.parametrize("name", ["ChurnModel", "generate_sample_data", "retention_list", "create_app", "churn-train"])
def test_search_leads_to_the_name(window: Window, home: str, name: str) -> None:
    page = window.page
    page.goto(home)
    page.get_by_role("searchbox", name="Search").press_sequentially(name)
    page.locator(".search-result").filter(has_text=name).first.click()
    page.wait_for_url(lambda address: address != home)
    target = page.locator(":target")  # what the address points at
    expect(target).to_contain_text(name)
    expect(target).to_be_in_viewport()


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ("batch scoring", "From a CSV file to a retention list"),
        ("retention list", "From a CSV file to a retention list"),
        ("deploy", "Call the model from your service"),
        ("docker", "Call the model from your service"),
        ("monitoring", "Server metrics"),
        ("drift", "Evaluating a saved model: churn-evaluate"),
        ("feature importance", "Reasons for a prediction"),
        ("authentication", "Limits and keys"),
    ],
)
def test_search_leads_from_other_words_to_the_page(window: Window, home: str, words: str, title: str) -> None:
    window.page.goto(home)
    window.page.get_by_role("searchbox", name="Search").fill(words)
    expect(window.page.locator(".search-result-title").first).to_have_text(title)


@pytest.mark.parametrize("width", [1280, 390])
def test_link_to_a_name_opens_its_source(open_window: Callable[..., Window], home: str, width: int) -> None:
    page = open_window(viewport={"width": width, "height": 844}).page
    page.goto(home.replace("index.html", "data/sample.html#generate_sample_data"))
    expect(page.get_by_text("def generate_sample_data").first).to_be_visible()


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_search_results_can_be_read(window: Window, home: str, mode: Mode) -> None:
    window.prefer(mode)
    window.page.goto(home)
    window.page.get_by_role("searchbox", name="Search").fill("generate_sample_data")
    window.page.locator(".search-result-text").first.wait_for()
    assert window.violations(mode) == []


def test_name_of_a_heading_is_its_text(window: Window, home: str) -> None:
    window.page.goto(home)
    window.page.locator(".anchorjs-link").first.wait_for(state="attached")
    expect(window.page.get_by_role("heading", name="In Python", exact=True)).to_be_visible()


def test_search_says_when_there_is_nothing(window: Window, home: str) -> None:
    window.page.goto(home)
    window.page.get_by_role("searchbox", name="Search").fill("zzzzqqqq")
    expect(window.page.get_by_text("No results")).to_be_visible()


def test_sidebar_leads_to_a_chapter_and_shows_where_one_is(window: Window, home: str) -> None:
    page = window.page
    page.goto(home)
    link = page.locator(f'#quarto-sidebar a[href$="{CHAPTER}"]')
    unfold(page, link)
    title = link.inner_text()
    link.click()
    page.wait_for_url(f"**/{CHAPTER}")
    expect(page.locator('#quarto-sidebar [aria-current="page"]')).to_have_text(title)


def test_next_and_previous_walk_the_sidebar_in_order(window: Window, home: str) -> None:
    page = window.page
    page.goto(home)
    order = page.locator("#quarto-sidebar a.sidebar-link").evaluate_all("links => links.map(link => link.href)")
    assert len(order) > 10
    for address in order[1:4]:
        page.locator(".nav-page-next a").click()
        page.wait_for_url(address)
    page.locator(".nav-page-previous a").click()
    page.wait_for_url(order[2])


def test_dark_mode_is_kept_on_the_next_page(window: Window, home: str) -> None:
    page = window.page
    page.goto(home)
    assert not is_dark(page)
    page.locator(".quarto-color-scheme-toggle").first.click()
    page.wait_for_function("document.documentElement.matches('.quarto-dark')")
    page.goto(home.replace("index.html", CHAPTER))
    assert is_dark(page)
    page.locator(".quarto-color-scheme-toggle").first.click()
    page.wait_for_function("!document.documentElement.matches('.quarto-dark')")


def test_menu_opens_on_a_telephone(open_window: Callable[..., Window], home: str) -> None:
    page = open_window(viewport={"width": 390, "height": 844}, has_touch=True).page
    page.goto(home)
    link = page.locator(f'#quarto-sidebar a[href$="{CHAPTER}"]')
    expect(link).not_to_be_visible()
    page.get_by_role("button", name="Toggle sidebar navigation").tap()
    unfold(page, link)
    link.tap()
    page.wait_for_url(f"**/{CHAPTER}")
    page.get_by_role("button", name="Toggle navigation").tap()
    expect(page.get_by_role("searchbox", name="Search")).to_be_visible()


def test_keyboard_skips_to_the_text(window: Window, home: str) -> None:
    page = window.page
    page.goto(home)
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


def test_keyboard_reaches_the_menus_and_the_search(window: Window, home: str) -> None:
    page = window.page
    page.goto(home)
    reached = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(focused(page))
    sections = page.locator("#quarto-sidebar a.sidebar-link").all_inner_texts()[:3]
    assert {"Search", *sections} <= reached


def test_keyboard_searches(window: Window, home: str) -> None:
    page = window.page
    page.goto(home)
    page.keyboard.press("/")
    page.keyboard.type("retention_list")
    page.locator(".search-result").first.wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: url != home)
    expect(page.locator("main")).to_contain_text("retention_list")


@pytest.mark.parametrize("name", ["index.html", CHAPTER])
def test_page_opens_from_the_disk(window: Window, site: Path, name: str) -> None:
    window.page.goto((site / name).as_uri())
    expect(window.page.locator("h1").first).to_be_visible()
    assert window.complaints() == []


def test_search_works_from_the_disk(window: Window, site: Path) -> None:
    page = window.page
    page.goto((site / "index.html").as_uri())
    page.get_by_role("searchbox", name="Search").fill("ChurnModel")
    page.locator(".search-result").first.click()
    page.wait_for_url(re.compile("churn_model|ChurnModel", re.IGNORECASE))
    assert window.complaints() == []
