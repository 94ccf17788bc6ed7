"""The built site in a headless Chromium: every page, link, color scheme and the search, wide and narrow.

The browser is Chromium as installed (`CHROMIUM`, or `chromium` on the path); Playwright drives it. Without either, the
tests say so and are skipped.
"""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCHEMES = ("light", "dark")

# Text whose contrast with what lies behind it is below 4.5:1 (3:1 for large text), WCAG 2.1, 1.4.3.
CONTRAST = """() => {
  const probe = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = color => {
    probe.clearRect(0, 0, 1, 1);
    probe.fillStyle = color;
    probe.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = probe.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, bottom) => [0, 1, 2].map(i => top[i] * top[3] + bottom[i] * (1 - top[3])).concat(1);
  const background = element => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const luminance = color => color.slice(0, 3)
    .map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const faint = new Set();
  const walker = document.createTreeWalker(document.querySelector('.md-content'), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    if (style.visibility === 'hidden' || element.closest('.headerlink, .md-clipboard, svg')) continue;
    let opacity = 1;
    for (let e = element; e; e = e.parentElement) opacity *= getComputedStyle(e).opacity;
    if (opacity === 0) continue;
    const behind = background(element);
    const color = rgba(style.color);
    const text = over([...color.slice(0, 3), color[3] * opacity], behind);
    const [a, b] = [luminance(text), luminance(behind)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5))
      faint.add(`${ratio.toFixed(2)} ${style.color} ${walker.currentNode.textContent.trim().slice(0, 30)}`);
  }
  return [...faint];
}"""

# Tables that scroll sideways, with the first words of each.
CUT_TABLES = """() => [...document.querySelectorAll('.md-typeset__scrollwrap')]
  .filter(frame => frame.scrollWidth > frame.clientWidth + 1)
  .map(frame => `${frame.scrollWidth} px of ${frame.clientWidth}: ${frame.innerText.slice(0, 40)}`)"""

# Words of a drawing, opened by itself, that reach beyond its edges.
CUT_LABELS = """() => {
  const edge = document.documentElement.getBoundingClientRect();
  return [...document.querySelectorAll('text')]
    .filter(text => text.textContent.trim())
    .filter(text => {
      const box = text.getBoundingClientRect();
      return box.left < edge.left - 1 || box.right > edge.right + 1 || box.top < edge.top - 1
        || box.bottom > edge.bottom + 1;
    })
    .map(text => text.textContent.trim());
}"""

pytestmark = pytest.mark.slow


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    pytest.importorskip("mkdocs", reason="the site is built with the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser: pip install playwright")
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is not installed (no chromium on the path, and CHROMIUM names none)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(site: Path) -> list[str]:
    """Paths of all pages."""
    files = sorted(site.rglob("index.html"))
    return ["/" + file.parent.relative_to(site).as_posix().removeprefix(".") + "/" for file in files]


def url(address: str, page: str) -> str:
    return address + page.replace("//", "/")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_page_opens_clean_and_readable(browser: Any, address: str, pages: list[str], scheme: str) -> None:
    """No console error, no failed request, none to another host, no broken image, no faint text."""
    assert len(pages) > 20
    view = browser.new_page(color_scheme=scheme)
    problems: list[str] = []
    view.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    view.on("pageerror", lambda error: problems.append(str(error)))
    view.on("response", lambda got: problems.append(f"{got.status} {got.url}") if got.status >= 400 else None)
    view.on(
        "request",
        lambda asked: None if asked.url.startswith((address, "data:", "blob:")) else problems.append(asked.url),
    )
    for page in pages:
        view.goto(url(address, page), wait_until="networkidle")
        assert (
            view.locator("body").get_attribute("data-md-color-scheme") == {"light": "default", "dark": "slate"}[scheme]
        )
        broken = view.evaluate(
            """async () => {
              const shown = [...document.images].filter(image => image.getClientRects().length);
              shown.forEach(image => image.loading = 'eager');
              await Promise.allSettled(shown.map(image => image.decode()));
              return shown.filter(image => !image.naturalWidth).map(image => image.src);
            }"""
        )
        problems += [f"{page}: broken image {source}" for source in broken]
        problems += [f"{page}: faint text, {scheme}: {text}" for text in view.evaluate(CONTRAST)]
    view.close()
    assert not problems, "\n".join(problems)


def test_links_and_anchors_resolve(browser: Any, address: str, pages: list[str]) -> None:
    view = browser.new_page()
    anchors: dict[str, set[str]] = {}
    links: list[tuple[str, str]] = []
    for page in pages:
        view.goto(url(address, page))
        ids = "() => [...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name)"
        anchors[url(address, page)] = set(view.evaluate(ids))
        links += [(page, link) for link in view.evaluate("() => [...document.links].map(link => link.href)")]
    lost = []
    checked: dict[str, bool] = {}
    for page, link in sorted(set(links)):
        target, _, anchor = link.partition("#")
        if not target.startswith(address):
            continue
        if target in anchors:
            if anchor and anchor not in anchors[target]:
                lost.append(f"{page}: no anchor {link}")
        else:
            if target not in checked:
                checked[target] = view.request.get(target).ok
            if not checked[target]:
                lost.append(f"{page}: no page {link}")
    view.close()
    assert len(links) > 500
    assert not lost, "\n".join(lost)


def test_search_finds_mlfpn(browser: Any, address: str) -> None:
    view = browser.new_page()
    view.goto(address, wait_until="networkidle")
    view.locator("input.md-search__input").click()
    view.keyboard.type("MLFPN", delay=50)
    results = view.locator(".md-search-result__item a")
    results.first.wait_for(timeout=20_000)
    assert "MLFPN" in results.first.inner_text()
    view.close()


def test_nothing_overflows_a_telephone(browser: Any, address: str, pages: list[str]) -> None:
    view = browser.new_page(viewport={"width": 390, "height": 844})
    wide = []
    for page in pages:
        view.goto(url(address, page), wait_until="networkidle")
        width = view.evaluate("() => document.documentElement.scrollWidth")
        if width > 390:
            wide.append(f"{page}: {width} px")
    view.close()
    assert not wide, "\n".join(wide)


def test_no_table_and_no_label_is_cut_at_1280_pixels(browser: Any, address: str, site: Path, pages: list[str]) -> None:
    view = browser.new_page(viewport={"width": 1280, "height": 900})
    cut = []
    for page in pages:
        view.goto(url(address, page))
        cut += [f"{page}: {table}" for table in view.evaluate(CUT_TABLES)]
    drawings = sorted(site.rglob("*.svg"))
    for drawing in drawings:
        view.goto(f"{address}/{drawing.relative_to(site).as_posix()}")
        cut += [f"{drawing.name}: {label}" for label in view.evaluate(CUT_LABELS)]
    view.close()
    assert len(drawings) > 30
    assert not cut, "\n".join(cut)


def test_the_home_page_has_a_drawing(browser: Any, address: str) -> None:
    view = browser.new_page(viewport={"width": 1280, "height": 900})
    view.goto(address, wait_until="networkidle")
    boxes = [image.bounding_box() for image in view.locator(".md-content img").all() if image.is_visible()]
    view.close()
    assert any(box["y"] < 900 and box["width"] > 500 for box in boxes)
