# SPDX-License-Identifier: GPL-2.0-only
"""The pages in a real browser: they fit, and a person can click and type through them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.model.results import Failure, Verdict
from harness.report import html
from tests.integration.browser import CHROMIUM, Browser, chromium
from tests.integration.test_report_serve import make_run, serving
from tests.unit import report_eventful, report_samples

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
SAMPLES = report_samples.everything()
LINE = f"c2-{report_eventful.SPLAT_LINE}"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the eventful run's report."""
    run = report_eventful.result()
    directory = tmp_path_factory.mktemp("run")
    report_eventful.fill_run_dir(run, directory)
    html.write(directory / "report.html", run, directory)
    return (directory / "report.html").as_uri()


def opened(browser: Browser, address: str, width: int = 1280, *, dark: bool = False) -> Browser:
    browser.complaints.clear()
    browser.size(width, 900, dark=dark)
    browser.open(address)
    return browser


def rows(browser: Browser, source: str = "") -> int:
    """The rows of the timeline that are seen."""
    found = browser.run(
        "Array.from(document.querySelectorAll('.ev')).filter(e => e.getClientRects().length &&"
        f" (!{json.dumps(source)} || e.querySelector('b').textContent === {json.dumps(source)}))"
        ".length"
    )
    assert isinstance(found, int)
    return found


def seen(browser: Browser, ident: str) -> bool:
    """Whether the element is inside the window and inside every box that scrolls around it."""
    return bool(
        browser.run(
            f"""(() => {{
              const e = document.getElementById({json.dumps(ident)});
              const r = e.getClientRects()[0];
              if (!r) return false;
              for (let box = e.parentElement; box; box = box.parentElement) {{
                if (getComputedStyle(box).overflowY === 'visible') continue;
                const b = box.getBoundingClientRect();
                if (r.bottom < b.top || r.top > b.bottom) return false;
              }}
              return r.top >= 0 && r.bottom <= innerHeight;
            }})()"""
        )
    )


@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize("name", ["failing", "hostile", "config_failure", "eventful", "celled"])
def test_no_horizontal_overflow(browser: Browser, name: str, width: int, tmp_path: Path) -> None:
    if name in ("eventful", "celled"):
        run = report_eventful.result() if name == "eventful" else report_eventful.celled()
        report_eventful.fill_run_dir(run, tmp_path)
    else:
        run = SAMPLES[name]
        report_samples.fill_run_dir(run, tmp_path)
    html.write(tmp_path / "report.html", run, tmp_path)
    opened(browser, (tmp_path / "report.html").as_uri(), width)
    browser.click("button[data-open='1']")
    browser.wait("!document.querySelector('details:not([open])')")
    assert browser.run("innerWidth") == width
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.complaints == [], "no error, and nothing that the page's policy had to stop"


def test_sources_are_filtered(browser: Browser, page: str) -> None:
    opened(browser, page)
    before, host = rows(browser), rows(browser, "host")
    assert 0 < host < before
    browser.click("#show-2")
    assert rows(browser, "host") == 0
    assert rows(browser) == before - host
    browser.wait(
        f"document.getElementById('filter-count').textContent.startsWith('{rows(browser)} of')"
    )
    browser.click("#show-2")
    assert rows(browser) == before
    browser.click("#show-notable")
    assert 0 < rows(browser) < 60


def test_text_and_time_are_filtered(browser: Browser, page: str) -> None:
    opened(browser, page)
    browser.key("/")
    assert browser.run("document.activeElement.id") == "filter-text"
    browser.type("NOT announced")
    browser.wait("document.getElementById('filter-count').textContent.startsWith('1 of')")
    assert rows(browser, "platform") == 1
    browser.key("Escape")
    browser.wait("document.getElementById('filter-text').value === ''")
    everything = rows(browser)
    browser.run(
        "(() => { const s = document.getElementById('filter-test');"
        " s.value = Array.from(s.options).find(o => o.text === 'guest:tsm:dma_freeze').value;"
        " s.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    assert 0 < rows(browser) < everything
    assert "splat: WARNING in dma_trust_unmap" in shown_text(browser)


def shown_text(browser: Browser) -> str:
    text: Any = browser.run(
        "Array.from(document.querySelectorAll('.ev')).filter(e => e.getClientRects().length)"
        ".map(e => e.textContent).join('\\n')"
    )
    return str(text)


def test_a_failure_leads_to_its_console_line(browser: Browser, page: str) -> None:
    opened(browser, page)
    browser.click("button[data-open='0']")
    browser.wait("!document.querySelector('details[open]')")
    browser.click(f"#failures ~ section a[href='#{LINE}']")
    browser.wait(f"location.hash === '#{LINE}' && document.querySelector('details[open]') !== null")
    assert seen(browser, LINE), "the closed console opened and scrolled to the line"
    assert not browser.run(f"document.querySelector('#{LINE}').matches('.cut')")
    browser.click(f"#{LINE} + a")
    browser.wait("location.hash === '#splat-1'")
    assert seen(browser, "splat-1") or browser.run(
        "document.getElementById('splat-1').getBoundingClientRect().top"
    ) < browser.run("innerHeight")


def test_a_link_with_an_anchor_opens_at_it(browser: Browser, page: str) -> None:
    opened(browser, f"{page}#{LINE}", 390)
    browser.wait("document.querySelector('.console').getClientRects().length > 0")
    assert seen(browser, LINE)


def test_the_glance_leads_to_the_tests(browser: Browser, page: str) -> None:
    opened(browser, page)
    browser.click(".matrix a.cell.bad")
    browser.wait("location.hash.startsWith('#group-')")
    assert seen(browser, browser.run("location.hash.slice(1)"))


def test_the_keyboard_is_enough(browser: Browser, page: str) -> None:
    opened(browser, page)
    browser.key("Tab")
    assert browser.run("document.activeElement.getAttribute('href')") == "#matrix"
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.run("document.querySelector('.tests summary').focus()")
    assert not browser.run("document.querySelector('.tests details').open")
    browser.key("Enter", "\r")
    assert browser.run("document.querySelector('.tests details').open")


@pytest.mark.parametrize("dark", [False, True])
def test_colours_follow_the_system(browser: Browser, page: str, dark: bool) -> None:
    opened(browser, page, dark=dark)
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(18, 20, 23)" if dark else "rgb(255, 255, 255)")


def test_all_is_there_without_script(browser: Browser, page: str) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        opened(browser, page, 390)
        assert rows(browser) > 1000
        assert browser.run("document.getElementById('filter-text').getClientRects().length") == 0
        browser.click("#show-2")
        assert rows(browser, "host") == 0, "sources are filtered by the style sheet alone"
        browser.click("#failures ~ section summary")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_index_follows_the_folder(browser: Browser, tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "20260801T101500Z-smoke")
    with serving(tmp_path / "runs") as served:
        opened(browser, f"http://127.0.0.1:{served.port}/", 390)
        browser.wait("document.getElementById('live').textContent.includes('follows')")
        make_run(tmp_path / "runs", "20260802T101500Z-smoke")
        browser.wait("document.body && document.body.textContent.includes('20260802T101500Z')")
        assert browser.run("document.documentElement.scrollWidth") <= 390
        browser.click("a.runname")
        browser.wait("location.pathname === '/runs/20260802T101500Z-smoke/report.html'")
        browser.wait("document.getElementById('filter-count')?.textContent.includes(' of ')")
        assert browser.complaints == []


def box(browser: Browser, selector: str) -> dict[str, float]:
    """Where the first such element is."""
    found = browser.run(
        f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()"
    )
    assert isinstance(found, dict)
    return found


def test_a_build_log_is_seen_from_its_end(browser: Browser, tmp_path: Path) -> None:
    lines = [f"  CC      file{number}.o" for number in range(300)]
    (tmp_path / "build-guest.log").write_text("\n".join([*lines, "drivers/a.c:7: error: no"]))
    failure = Failure("build", "guest", "the kernel does not build", log="build-guest.log")
    run = replace(report_samples.run(Verdict.FAIL), failures=(failure,))
    html.write(tmp_path / "report.html", run, tmp_path)
    opened(browser, (tmp_path / "report.html").as_uri())
    below = browser.run(
        """(() => {
          const log = document.querySelector('#failure-1 pre'), last = document.createRange();
          last.selectNodeContents(log.lastChild);
          return last.getBoundingClientRect().bottom - log.getBoundingClientRect().bottom;
        })()"""
    )
    assert below <= 0, "the last line, which has the error, is not out of sight"


def test_the_list_of_tests_is_a_line_each(browser: Browser, page: str) -> None:
    opened(browser, page)
    line, badge = box(browser, ".tests summary"), box(browser, ".tests summary .badge")
    assert badge["y"] - line["y"] < 12, "the triangle stands before the test, not above it"


def test_a_phone_shows_the_name_and_the_outcome_of_a_test(browser: Browser, tmp_path: Path) -> None:
    run = report_eventful.celled()
    report_eventful.fill_run_dir(run, tmp_path)
    html.write(tmp_path / "report.html", run, tmp_path)
    opened(browser, (tmp_path / "report.html").as_uri(), 390)
    assert 120 < box(browser, ".matrix tbody th")["width"] < 180
    browser.run("document.querySelector('.scroll').scrollLeft = 200")
    assert box(browser, ".matrix tbody th")["x"] >= 0, "the names stay when the cells scroll"
