# SPDX-License-Identifier: GPL-2.0-only
"""`tdisp-harness report --serve` and its relatives, as processes, over real HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.layout import REPOSITORY
from harness.report import html, json_report
from harness.report.site import RunsSite
from tests.unit import report_eventful, report_samples

REPORT = [sys.executable, "-m", "harness", "report"]


def make_run(
    runs: Path, name: str = "20260801T101500Z-smoke", *, page: bool = True, plan: str = "smoke"
) -> Path:
    directory = runs / name
    directory.mkdir(parents=True)
    result = replace(report_eventful.result(), run_id=name, plan=plan)
    report_eventful.fill_run_dir(result, directory)
    json_report.write(directory / "result.json", result)
    if page:
        html.write(directory / "report.html", result, directory)
    return directory


@dataclass
class Served:
    process: subprocess.Popen[str]
    port: int
    runs: Path

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
        """(status, body, policy); the path goes over the wire as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            body = answer.read().decode("utf-8", "replace")
            return answer.status, body, answer.getheader("Content-Security-Policy", "")
        finally:
            connection.close()


@contextmanager
def serving(runs: Path) -> Iterator[Served]:
    process = subprocess.Popen(
        [*REPORT, "--serve", "--port", "0", "--runs-dir", str(runs)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        found = re.match(r"http://127\.0\.0\.1:(\d+)/ ", first)
        assert found, first + process.stdout.read()
        yield Served(process, int(found[1]), runs)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("serve")
    (root / "secret.log").write_text("the secret")
    run = make_run(root / "runs")
    (run / "id_ed25519").write_text("the secret")
    (run / "id_ed25519.log").write_text("the secret")
    (run / "ssh-guest.json").write_text('["the secret"]')
    (run / ".hidden.log").write_text("the secret")
    (run / "link.log").symlink_to(root / "secret.log")
    (run / "up").symlink_to(root)
    (run / "evil.html").write_text("<script>alert(1)</script>")
    os.mkfifo(run / "pipe.log")
    (root / "runs" / "other").symlink_to(root)
    (root / "runs" / "latest").symlink_to(run.name)
    with serving(root / "runs") as found:
        yield found


def test_index_report_and_files(served: Served) -> None:
    status, index, policy = served.get("/")
    assert status == 200
    assert 'href="/runs/20260801T101500Z-smoke/report.html"' in index
    assert "connect-src 'self'" in policy
    run = "/runs/20260801T101500Z-smoke"
    status, page, policy = served.get(f"{run}/report.html")
    assert status == 200
    assert page.lstrip().startswith("<!doctype html>")
    assert "script-src 'sha256-" in policy
    for link in set(re.findall(r'href="\./([^"]+)"', page)):
        status, _, policy = served.get(f"{run}/{link}")
        assert status == 200, link
        assert "sandbox" in policy
    assert served.get("/runs/latest/report.html")[0] == 200
    assert served.get(f"{run}/")[0] == 302


@pytest.mark.parametrize(
    "path",
    [
        "/runs/../secret.log",
        "/runs/20260801T101500Z-smoke/../../secret.log",
        "/runs/20260801T101500Z-smoke/%2e%2e/%2e%2e/secret.log",
        "/runs/20260801T101500Z-smoke/..%2f..%2fsecret.log",
        "/runs/20260801T101500Z-smoke//etc/passwd",
        "/runs/20260801T101500Z-smoke/%2fetc%2fpasswd",
        "/runs/20260801T101500Z-smoke/link.log",
        "/runs/20260801T101500Z-smoke/up/secret.log",
        "/runs/20260801T101500Z-smoke/id_ed25519",
        "/runs/20260801T101500Z-smoke/id_ed25519.log",
        "/runs/20260801T101500Z-smoke/ssh-guest.json",
        "/runs/20260801T101500Z-smoke/.hidden.log",
        "/runs/20260801T101500Z-smoke/pipe.log",
        "/runs/20260801T101500Z-smoke/x%00.log",
        "/runs/20260801T101500Z-smoke/%ff.log",
        "/runs/other/secret.log",
        "/runs/%2e%2e/secret.log",
        "/runs/./secret.log",
        "/runs//secret.log",
        "/secret.log",
        "//secret.log",
        "/runs",
        "*",
    ],
)
def test_nothing_else_is_served(served: Served, path: str) -> None:
    status, body, _ = served.get(path)
    assert status == 404
    assert "secret" not in body
    assert "root:" not in body


def test_a_page_of_someone_else_gets_nothing(served: Served) -> None:
    assert served.get("/", Host=f"evil.example:{served.port}")[0] == 403
    assert served.get("/", Host=f"localhost:{served.port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_only_reads(served: Served, method: str) -> None:
    assert served.get("/", method)[0] == 501


def test_foreign_html_is_text(served: Served) -> None:
    status, _, policy = served.get("/runs/20260801T101500Z-smoke/evil.html")
    assert status == 200
    assert "sandbox" in policy
    assert "script-src" not in policy


def test_head_has_no_body(served: Served) -> None:
    assert served.get("/runs/latest/result.json", "HEAD")[:2] == (200, "")


def test_only_loopback_is_bound(served: Served) -> None:
    for family, address in ((socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as other, pytest.raises(OSError):
            other.connect((address, served.port))


def test_a_taken_port_is_told(served: Served) -> None:
    done = subprocess.run(
        [*REPORT, "--serve", "--port", str(served.port), "--runs-dir", str(served.runs)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 64
    assert "--port 0 takes any port" in done.stderr


def test_new_runs_appear_and_broken_ones_are_told(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    with serving(runs) as served:
        assert "No run has been made here yet" in served.get("/")[1]
        before = served.get("/state")[1]
        make_run(runs, page=False)
        (runs / "broken").mkdir()
        (runs / "broken" / "result.json").write_text("{")
        assert served.get("/state")[1] != before
        index = served.get("/")[1]
        assert "20260801T101500Z-smoke" in index
        assert "UNREADABLE" in index
        assert "result.json: Expecting" in index
        assert "0.0 s" not in index, "nobody knows how long it took"
        # no report.html yet, as while a run is under way: made in memory, nothing is written
        status, page, _ = served.get("/runs/20260801T101500Z-smoke/report.html")
        assert (status, "FAIL: " in page) == (200, True)
        assert not (runs / "20260801T101500Z-smoke" / "report.html").exists()
        assert "Expecting" in served.get("/runs/broken/report.html")[1]


def test_a_broken_run_stands_where_its_name_says(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "20260801T101500Z-smoke")
    for name in ("20260802T101500Z-smoke", "20260731T101500Z-smoke"):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "result.json").write_text("{")
    found = [line.name for line in RunsSite(tmp_path / "runs").lines()]
    assert found == [f"{day}T101500Z-smoke" for day in ("20260802", "20260801", "20260731")]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly(tmp_path: Path, signum: signal.Signals) -> None:
    with serving(tmp_path) as served:
        # a browser that keeps its connection open must not hold it back
        idle = socket.create_connection(("127.0.0.1", served.port))
        time.sleep(0.3)
        begin = time.monotonic()
        served.process.send_signal(signum)
        assert served.process.stdout is not None
        rest = served.process.stdout.read()
        assert served.process.wait(20) == 0
        assert time.monotonic() - begin < 5
        assert rest == "ended\n"
        idle.close()


def report(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*REPORT, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_open_starts_the_users_browser(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    script.chmod(0o755)
    done = report(str(run), "--open", BROWSER=str(script))
    assert done.returncode == 1, "the run's own exit code"
    assert str(run / "report.html") in done.stdout
    deadline = time.monotonic() + 10
    while not (tmp_path / "opened").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (tmp_path / "opened").read_text().strip() == (run / "report.html").as_uri()


def test_open_without_a_browser_names_the_file(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    done = report(str(run), "--open", PATH="/nonexistent", BROWSER="/nonexistent/browser")
    assert "no browser found" in done.stdout
    assert str(run / "report.html") in done.stdout


def test_kcidb_is_what_the_official_schema_takes(tmp_path: Path) -> None:
    schema = pytest.importorskip("kcidb_io.schema", reason="kcidb-io is not installed")
    run = make_run(tmp_path)
    done = report(str(run), "--kcidb", "--kcidb-origin", "my_lab")
    assert f"KCIDB: {run / 'kcidb.json'}" in done.stdout
    data = json.loads((run / "kcidb.json").read_text())
    schema.V5_3.validate_exactly(data)
    assert {test["origin"] for test in data["tests"]} == {"my_lab"}
    assert report(str(run), "--kcidb", "--kcidb-origin", "My Lab").returncode == 64


def test_the_step_summary_is_written_once(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    step = tmp_path / "step.md"
    step.write_text("before\n")
    for _ in range(2):
        report(str(run), GITHUB_STEP_SUMMARY=str(step))
    text = step.read_text()
    assert text.startswith("before\n")
    assert text.count("## FAIL") == 1
    assert (run / "summary.md").read_text() in text
    done = report(str(run), GITHUB_STEP_SUMMARY=str(tmp_path / "none" / "x"))
    assert done.returncode == 1
    assert "warning: GITHUB_STEP_SUMMARY" in done.stderr


@pytest.mark.parametrize("arguments", [["--port", "1"], ["--serve", "--runs-dir", "/nonexistent"]])
def test_mistakes_are_told(arguments: list[str]) -> None:
    done = report(*arguments)
    assert done.returncode == 64
    assert "hint: " in done.stderr


def test_trends_show_every_run_of_a_plan(tmp_path: Path) -> None:
    for day in range(1, 4):
        make_run(tmp_path, f"2026080{day}T101500Z-smoke")
    boot = tmp_path / "20260804T101500Z-smoke"
    boot.mkdir()
    failed = replace(
        report_samples.boot_failure(), run_id=boot.name, started="2026-08-04T10:15:00Z"
    )
    json_report.write(boot / "result.json", failed)
    page = RunsSite(tmp_path).page("/")
    assert page is not None
    assert isinstance(page.body, bytes)
    text = page.body.decode()
    assert text.count("<g><title>") == 4, "a run that did not boot is a part of the trend"
    assert "guest:tsm:race_lock" in text
    assert text.index("20260804T101500Z-smoke/report") < text.index("20260803T101500Z-smoke/report")


def test_the_index_begins_with_the_newest_verdict_of_each_plan(tmp_path: Path) -> None:
    for day, plan in ((1, "smoke"), (2, "other"), (3, "smoke")):
        make_run(tmp_path, f"2026080{day}T101500Z-{plan}", plan=plan)
    page = RunsSite(tmp_path).page("/")
    assert page is not None and isinstance(page.body, bytes)
    text = page.body.decode()
    head = text[text.index("<h2>") : text.index("<figure>")]
    assert re.findall(r'class="badge \w+">(\w+)<.*?href="/runs/(\w+-\w+)/', head) == [
        ("FAIL", "20260803T101500Z-smoke"),
        ("FAIL", "20260802T101500Z-other"),
    ]
    assert "how long the run took, " in text
