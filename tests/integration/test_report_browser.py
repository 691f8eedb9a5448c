# SPDX-License-Identifier: GPL-2.0-only
"""report.html in a real browser: fits a phone, without horizontal scrolling."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.report import html
from tests.unit import report_samples

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")

# The page is shown in a frame of the given width: a browser window cannot be made that narrow.
FRAME = """<!doctype html><body style="margin:0">
<iframe id="f" src="probe.html" style="border:0;width:{width}px;height:900px"></iframe>"""
PROBE = """<script>
for (const d of document.querySelectorAll("details")) d.open = true;
document.title = "w" + document.documentElement.scrollWidth + "/" + innerWidth;
parent.postMessage(document.title, "*");
</script></body>"""
LISTEN = '<script>addEventListener("message", e => document.title = e.data)</script>'


@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize("name", ["failing", "hostile", "config_failure"])
def test_no_horizontal_overflow(name: str, width: int, tmp_path: Path) -> None:
    result = report_samples.everything()[name]
    report_samples.fill_run_dir(result, tmp_path)
    page = html.render(result, tmp_path)
    # The page's own policy forbids scripts, so the probe goes into a copy without it.
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    (tmp_path / "probe.html").write_text(page.replace("</body>", PROBE), encoding="utf-8")
    (tmp_path / "frame.html").write_text(LISTEN + FRAME.format(width=width), encoding="utf-8")
    done = subprocess.run(
        [
            str(BROWSER),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--virtual-time-budget=5000",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1400,1000",
            "--dump-dom",
            (tmp_path / "frame.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    found = re.search(r"<title>w(\d+)/(\d+)</title>", done.stdout)
    assert found, done.stderr[-2000:]
    assert int(found[2]) == width
    assert int(found[1]) <= width
