"""`report.html` of real runs, opened in Chromium as a reader would."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import brief_gold, results_of, sample_pairs, tiny_arguments
from forked import run_forked
from playwright.sync_api import Browser, Page, sync_playwright

JOB = "trans_encoder.py"
PAGE = "report.html"
pytestmark = [pytest.mark.slow, pytest.mark.browser]

PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
HOSTILE = [
    ("<script>window.ran = 1</script>", "<img src=x onerror='window.ran = 2'>"),
    ("</style></head><body><h1>mine</h1>", "<!-- {{ 7 * 7 }} {% raw %} --> &amp; &lt;"),
    ('"quoted" \'twice\' `thrice` onmouseover="window.ran = 3"', "https://example.org/picture.png"),
    ("Donaudampfschifffahrtsgesellschaft" * 20, "a" * 3000),
    ("שלום עולם", "$x^2_{$ 🙂 \\frac"),
]
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def run(tiny: Path, letters: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two models and two cycles, whose pool is so small that the page shows nearly every pair."""
    folder = tmp_path_factory.mktemp("runs")
    pairs = [{"sentence1": one, "sentence2": two} for one, two in [*HOSTILE, *sample_pairs(11)]]
    (folder / "pool.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    models = f"[{{bi_encoder: {tiny}, name: one}}, {{bi_encoder: {letters}, name: two, pooling: mean}}]"
    more = [*brief_gold(folder), "--models", models]
    arguments = tiny_arguments(tiny, folder / "run", *more, pool=[str(folder / "pool.jsonl")])
    finished = run_forked(JOB, arguments, charts=True)
    assert finished.returncode == 0, finished.stderr
    assert PAGE in finished.stdout
    return folder / "run"


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one cycle of bi-encoders alone, without any gold score."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    arguments = tiny_arguments(tiny, folder, "--distillation.students", "bi-encoder", "--distillation.cycles", "1")
    arguments += ["--distillation.selection", "last", "--data.dev", "null", "--data.test", "[]"]
    finished = run_forked(JOB, arguments, charts=True)
    assert finished.returncode == 0, finished.stderr
    folder.with_name("arguments.json").write_text(json.dumps(arguments), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("the program 'chromium' is not installed; apt-get install --no-install-recommends chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@contextlib.contextmanager
def watched_pages(browser: Browser) -> Iterator[Open]:
    """Opens a run's page; at the end nothing was fetched but the page, and the console is empty."""
    asked: list[str] = []
    said: list[str] = []
    opened: list[Page] = []

    def open_it(root: Path, viewport: dict[str, int], scheme: str = "light") -> Page:
        page = browser.new_page(viewport=viewport, color_scheme=scheme)
        opened.append(page)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((root / PAGE).as_uri())
        return page

    yield open_it
    for page in opened:
        page.close()
    assert len(asked) == len(opened), asked
    assert not said


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    with watched_pages(browser) as open_it:
        yield open_it


@pytest.fixture(scope="module")
def desk(run: Path, browser: Browser) -> Iterator[Page]:
    """The page of `run` on a desk, for tests that only read it."""
    with watched_pages(browser) as open_it:
        yield open_it(run, DESK)


def charts(page: Page) -> list[str]:
    """What each chart is called, of those that are seen and hold something."""
    return page.eval_on_selector_all(
        "svg[role=img]",
        "all => all.filter(one => one.getBoundingClientRect().width > 200 && one.querySelectorAll('path').length > 5)"
        ".map(one => one.getAttribute('aria-label'))",
    )


def contents(page: Page) -> str:
    return page.inner_text("body")


def test_every_chart_is_there(run: Path, desk: Page) -> None:
    found = charts(desk)
    dev = results_of(run)["cycles"][1]["two"]["cross-encoder"]["dev"]
    assert len(found) == 2 * 2 + 2 * (2 + 2 + 2)  # dev and test; two labellings, two scatters, two kinds that moved
    assert sum(title.startswith("Histogram of labels, cycle 2") for title in found) == 2
    assert sum("labels over the bi-encoder's, cycle 1" in title for title in found) == 2
    assert sum(title.startswith("Change of the cross-encoder's labels: cycle 1 → cycle 2") for title in found) == 2
    shown = f"cycle 2 cross-encoder {100 * dev:.2f}".replace(" -", " −")
    assert any(title.startswith("two · dev") and shown in title for title in found)


def test_scatter_charts_show_every_pair_of_a_small_pool(desk: Page) -> None:
    most = "Math.max(...[...one.querySelectorAll('g')].map(group => group.querySelectorAll(':scope > use').length))"
    found = desk.eval_on_selector_all("svg[aria-label*='labels over']", f"all => all.map(one => {most})")
    assert found == [16] * 4


def test_marks_refer_to_shapes_of_their_own_chart(desk: Page) -> None:
    # names hold no character that a selector reads as its own
    lost = "all => all.filter(one => !one.closest('svg').querySelector(one.getAttribute('href'))).length"
    assert desk.eval_on_selector_all("use", "all => all.length") > 100
    assert desk.eval_on_selector_all("use", lost) == 0
    identities = desk.eval_on_selector_all("[id]", "all => all.map(one => one.id)")
    assert len(identities) == len(set(identities))


def test_numbers_are_those_of_the_run(run: Path, desk: Page) -> None:
    results = results_of(run)
    text = contents(desk)
    for name in ("one", "two", "ensemble"):
        for entry in results["final"][name].values():
            assert f"{100 * entry['dev']:.2f}".replace("-", "−") in text
    assert "Gold scores of the dev set chose checkpoints and cycles." in text


def test_sentences_are_text_and_nothing_else(run: Path, open_page: Open) -> None:
    page = open_page(run, PHONE)
    shown = page.eval_on_selector_all(".pairs p", "all => all.map(one => one.textContent)")
    sentences = {text for pair in HOSTILE for text in pair}
    # nearly every pair of the pool is in one of the four lists
    assert len([text for text in sentences if text in shown or any(text[:399] == seen[:399] for seen in shown)]) >= 8
    assert max(map(len, shown)) == 400
    assert page.evaluate("window.ran") is None
    assert page.eval_on_selector_all("script, img, iframe, object, embed", "all => all.length") == 0
    assert page.eval_on_selector_all("h1", "all => all.map(one => one.textContent)") == ["Trans-Encoder run"]


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("name", ["run", "plain"])
def test_nothing_is_wider_than_the_window(
    name: str, viewport: dict[str, int], request: pytest.FixtureRequest, open_page: Open
) -> None:
    page = open_page(request.getfixturevalue(name), viewport)
    page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    outside = page.eval_on_selector_all(
        "body *",
        "all => all.filter(one => !one.closest('.scroll, .skip, .hidden') && "
        "one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 200))",
    )
    assert not outside
    # what people read has a size that they can read
    sizes = page.eval_on_selector_all(
        "svg text", "all => all.map(one => one.getBoundingClientRect()).map(box => Math.min(box.width, box.height))"
    )
    assert min(sizes) > 5


CONTRAST = """
() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = text => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = colour => {
    const [r, g, b] = colour.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = node => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
    if (!own || node.closest('title, desc')) continue;
    const style = getComputedStyle(node);
    const [one, two] = [light(rgba(node.closest('svg') ? style.fill : style.color)), light(behind(node))];
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    found.push([ratio, node.tagName, node.textContent.slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}
"""


def test_dark_and_light_can_be_read(run: Path, open_page: Open) -> None:
    backgrounds, drawn = [], []
    for scheme in ("light", "dark"):
        page = open_page(run, DESK, scheme)
        page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
        backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        drawn.append(
            page.eval_on_selector_all(
                "svg path", "all => [...new Set(all.map(one => getComputedStyle(one).stroke))].sort()"
            )
        )
        ratios = page.evaluate(CONTRAST)
        assert len(ratios) > 200
        assert {"text", "P", "TD", "STRONG"} <= {tag for _, tag, _ in ratios}
        assert ratios[0][0] >= 4.5, ratios[:5]
    assert len(set(backgrounds)) == 2
    assert set(drawn[0]) & set(drawn[1]) <= {"none"}


def test_the_keyboard_reaches_everything(run: Path, open_page: Open) -> None:
    page = open_page(run, PHONE)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        tag, label, outline = page.evaluate(
            "[document.activeElement.tagName, document.activeElement.ariaLabel || document.activeElement.textContent,"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        if tag == "BODY":
            break
        assert outline != "none", label
        if tag == "SUMMARY":
            page.keyboard.press("Enter")
        else:
            reached.append(label)
    regions = page.eval_on_selector_all("[role=region]", "all => all.map(one => one.ariaLabel)")
    assert len(regions) == len(set(regions)) == 2 + 2 * 2 + 1 + 2
    assert [label for label in reached if label in regions] == regions


def test_parts_without_data_are_left_out(plain: Path, open_page: Open) -> None:
    page = open_page(plain, DESK)
    text = contents(page)
    assert len(charts(page)) == 1  # the histogram of the one labelling
    for word in ("cross-encoder", " dev ", "test average", "disagree", "moved", "Agreement", "→"):
        assert word not in text, word
    assert "No gold score chose anything" in text
    empty = "all => all.filter(one => !one.textContent.trim()).map(one => one.outerHTML)"
    assert page.eval_on_selector_all("figure, ul, ol, li, p, section, tbody, .figures, .scroll", empty) == []


def test_the_page_stands_alone(run: Path, plain: Path, open_page: Open) -> None:
    for root in (run, plain):
        assert (root / PAGE).stat().st_size < 1_000_000
        places = open_page(root, DESK).eval_on_selector_all(
            "[src], [href], [srcset], [data], [action]",
            "all => all.flatMap(one => [...one.attributes]).filter(a => /src|href|data|action/.test(a.name))"
            ".map(a => a.value).filter(value => !value.startsWith('#'))",
        )
        assert places == ["data:,"]


def test_a_page_that_is_missing_is_written_again_with_the_same_bytes(plain: Path) -> None:
    """A run that was killed between its results and its page is finished by the same command."""
    before = (plain / PAGE).read_bytes()
    (plain / PAGE).unlink()
    again = run_forked(JOB, json.loads(plain.with_name("arguments.json").read_text(encoding="utf-8")), charts=True)
    assert again.returncode == 0, again.stderr
    assert "there is nothing to do" in again.stdout
    assert (plain / PAGE).read_bytes() == before
