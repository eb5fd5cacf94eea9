"""The page of `nmt serve` in Chromium, on a phone and a wide window, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nmt import Translator
from nmt.serve.app import Settings, create_app
from tests.helpers.serving import serving

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: apt-get install chromium")
TEXT = "我爱中国。\n\n老师看见大海。"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def translator(toy_run: Path) -> Translator:
    return Translator.load(toy_run, "cpu")


@pytest.fixture(scope="module")
def url(translator: Translator) -> Iterator[str]:
    with serving(create_app(translator, Settings(char_limit=200))) as address:
        yield address


@pytest.fixture(scope="module")
def opened(browser: Any, url: str) -> Iterator[Any]:
    """The page; errors of scripts and requests to other servers fail the tests."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: request.url.startswith((url, "data:")) or problems.append(request.url),
    )
    page.goto(url)
    page.locator("#source").press_sequentially("我爱")
    page.wait_for_selector(".word")
    yield page
    context.close()
    assert problems == []


@pytest.fixture
def page(opened: Any) -> Any:
    """The page with a translated text, in a wide window."""
    opened.set_viewport_size({"width": 1280, "height": 800})
    opened.click("#tab-translate")
    opened.fill("#source", TEXT)
    opened.wait_for_selector(".line:nth-child(3) .word")
    return opened


def weights(page: Any, selector: str) -> list[float]:
    script = "nodes => nodes.map(node => Number(node.style.getPropertyValue('--w')))"
    values: list[float] = page.locator(selector).evaluate_all(script)
    return values


def test_each_line_has_its_translation(page: Any, translator: Translator) -> None:
    shown = [text.strip() for text in page.locator("#target .line").all_inner_texts()]
    expected = [translation.text for translation in translator.translate(TEXT.split("\n"))]
    assert [text.split("\n")[0] for text in shown] == expected
    page.click("#copy")
    page.wait_for_selector("text=Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "\n".join(expected)
    page.click("#clear")
    playwright.expect(page.locator(".word")).to_have_count(0)
    assert page.locator("#copy").is_disabled()


def test_a_word_highlights_its_characters_and_back(page: Any, translator: Translator) -> None:
    (translation,) = translator.translate(TEXT.split("\n")[2:])
    expected = translation.attention_map.weights
    characters = '#mirror span[data-line="2"]'
    page.hover('.word[data-line="2"][data-index="1"]')
    assert weights(page, characters) == pytest.approx(expected[1].tolist(), abs=1e-3)
    box = page.locator(f'{characters}[data-index="2"]').bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    words = weights(page, '.word[data-line="2"]')
    assert words == pytest.approx(expected[:, 2].tolist(), abs=1e-3)
    page.mouse.move(5, 5)
    assert not any(weights(page, characters))


def test_words_are_reached_with_the_keyboard(page: Any) -> None:
    page.focus('.word[data-line="0"]')
    for key, index in (("ArrowRight", 1), ("End", 2), ("ArrowRight", 2), ("Home", 0)):
        page.keyboard.press(key)
        assert page.evaluate("Number(document.activeElement.dataset.index)") == index
    assert any(weights(page, '#mirror span[data-line="0"]'))
    announcement = page.locator("#announcement").inner_text()
    assert announcement.startswith("I: ")
    assert "%" in announcement
    assert page.locator('.word[data-line="0"][tabindex="0"]').count() == 1


def test_alternatives_and_flags_are_shown(page: Any, translator: Translator) -> None:
    page.fill("#source", "hello hello hello")
    page.wait_for_selector(".flags li")
    assert "script" in page.locator(".flags").inner_text()
    page.fill("#source", "我爱中国。")
    (translation,) = translator.translate(["我爱中国。"], n_best=3)
    others = [c.text for c in translation.candidates if c.text != translation.text]
    playwright.expect(page.locator("details li")).to_have_text(others)
    page.click("summary")
    assert page.locator("details li").first.is_visible()


def test_the_attention_is_played_word_by_word(page: Any, translator: Translator) -> None:
    (translation,) = translator.translate(["我爱中国。"])
    matrix = translation.attention_map.weights
    page.click("#tab-steps")
    page.click("#next")
    heights = page.locator("#bars i").evaluate_all(
        "nodes => nodes.map(node => parseFloat(node.style.height) / 72)"
    )
    assert heights == pytest.approx((matrix[1] / matrix.max()).tolist(), abs=2e-3)
    assert "Word 2 of 3, “love”" in page.locator("#caption").inner_text()
    assert page.locator("#matrix tbody tr").count() == 3
    page.click("#play")
    assert page.locator("#play").inner_text() == "Pause"
    playwright.expect(page.locator("#play")).to_have_text("Play")
    assert page.locator("#step").input_value() == "2"
    page.select_option("#line", TEXT.split("\n")[2])
    assert "Word 1 of" in page.locator("#caption").inner_text()
    page.focus("#tab-steps")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#translate").is_visible()


def test_an_error_of_the_server_is_shown(page: Any) -> None:
    page.fill("#source", "我" * 201)
    page.wait_for_selector("text=exceeds text limit (200)")


def test_a_required_key_is_requested(browser: Any, translator: Translator) -> None:
    app = create_app(translator, Settings(api_keys=("secret",)))
    with serving(app) as address:
        opened = browser.new_page()
        opened.goto(address)
        opened.wait_for_selector("#key")
        opened.fill("#source", "我爱中国。")
        opened.wait_for_selector("text=Invalid API key")
        opened.fill("#key", "secret")
        opened.wait_for_selector(".word")
        opened.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_window(page: Any, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    source, target = (page.locator(name).bounding_box() for name in ("#source", "#target"))
    if width == 390:
        assert target["y"] >= source["y"] + source["height"]
    else:
        assert target["x"] >= source["x"] + source["width"]
    for tab in ("#tab-translate", "#tab-steps"):
        page.click(tab)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 31)"}[scheme]
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select, textarea')].filter(node =>"
        " !node.textContent.trim() && !node.ariaLabel && !node.labels?.length).map(n => n.id)"
    )
    assert unnamed == []
