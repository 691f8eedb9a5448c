# SPDX-License-Identifier: GPL-2.0-only
"""A folder of runs as pages: an index with trends, each run's report, and the files beside it.

Only what a run directory is documented to hold is shown: no dot files, no keys, nothing that a link
leads to outside of the run.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.model.results import RunResult
from harness.report import html, index, json_report
from harness.report.index import RunLine

RUN_LIMIT = 200  # the newest are read
_HTML = "text/html; charset=utf-8"
_KINDS = {
    ".html": "text/plain; charset=utf-8",  # but for report.html itself
    ".json": "application/json",
    ".xml": "text/xml; charset=utf-8",
}
_TEXT = {".log", ".txt", ".md", ".ktap", ".sh", ".toml", ".patch", ".config", ".jsonl", ".mbox"}


@dataclass(frozen=True, slots=True)
class Page:
    """What a path shows. body: bytes, or the file. policy: the CSP, "" for the strictest."""

    body: bytes | Path
    kind: str = "text/plain; charset=utf-8"
    policy: str = ""
    location: str = ""


class RunsSite:
    """Pages by path; everything is looked at anew for each request, so new runs appear."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._cache: dict[Path, tuple[tuple[int, int], RunLine]] = {}
        self._lock = threading.Lock()

    def page(self, path: str) -> Page | None:
        """The page of a decoded path, None when there is none. Never raises for any path."""
        if path == "/":
            body = index.render(self.lines()).encode("utf-8", "replace")
            return Page(body, _HTML, index.policy())
        if path == "/state":
            return Page(self.state().encode())
        parts = path.split("/")
        if len(parts) < 3 or parts[:2] != ["", "runs"]:
            return None
        run = self._run(parts[2])
        if run is None:
            return None
        rest = parts[3:]
        if rest in ([], [""]):
            return Page(b"", location=f"/runs/{parts[2]}/report.html")
        return self._report(run) if rest == ["report.html"] else self._file(run, rest)

    def state(self) -> str:
        """Changes whenever a run appears, goes or changes."""
        digest = hashlib.sha256()
        for path, stamp in self._results():
            digest.update(f"{path.parent.name}\0{stamp}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def lines(self) -> tuple[RunLine, ...]:
        """The newest runs, newest first; one whose result cannot be read says why."""
        found: list[RunLine] = []
        with self._lock:
            for path, stamp in self._results()[:RUN_LIMIT]:
                cached = self._cache.get(path)
                if cached is None or cached[0] != stamp:
                    cached = (stamp, _line(path))
                    self._cache[path] = cached
                found.append(cached[1])
        return tuple(sorted(found, key=_when, reverse=True))

    def _results(self) -> list[tuple[Path, tuple[int, int]]]:
        """result.json of each run with (mtime, size), by name, the newest name first."""
        found = []
        for path in self._directories():
            try:
                state = (path / "result.json").stat()
            except OSError:
                continue
            found.append((path / "result.json", (state.st_mtime_ns, state.st_size)))
        return sorted(found, key=lambda item: item[0].parent.name, reverse=True)

    def _directories(self) -> Iterator[Path]:
        try:
            yield from (
                path
                for path in self._runs.iterdir()
                if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")
            )
        except OSError:
            return

    def _run(self, name: str) -> Path | None:
        """A run directory by its very name (or "latest"): a name is compared, never joined."""
        if name == "latest":
            found = (self._runs / name).resolve()
            name = found.name
        return next((path for path in self._directories() if path.name == name), None)

    def _report(self, run: Path) -> Page | None:
        """report.html, made anew in memory when it is older than the result or absent."""
        page, result = run / "report.html", run / "result.json"
        try:
            if page.is_symlink() or page.stat().st_mtime_ns < result.stat().st_mtime_ns:
                raise FileNotFoundError
            return Page(page, _HTML, html.policy())
        except OSError:
            pass
        try:
            body = html.render(_load(result), run).encode("utf-8", "replace")
        except (HarnessError, OSError, ValueError) as error:
            return Page(f"{result.name}: {error}\n".encode("utf-8", "replace"))
        return Page(body, _HTML, html.policy())

    def _file(self, run: Path, parts: list[str]) -> Page | None:
        name = parts[-1]
        if any(not part or part.startswith(".") or "\\" in part or "\0" in part for part in parts):
            return None
        suffix = Path(name).suffix
        if (suffix not in _KINDS and suffix not in _TEXT) or name.startswith(("ssh-", "id_")):
            return None
        try:
            path = run.joinpath(*parts).resolve()
            if not path.is_relative_to(run.resolve()) or not path.is_file():
                return None
        except (OSError, ValueError):
            return None
        return Page(path, _KINDS.get(suffix, "text/plain; charset=utf-8"))


def _load(path: Path) -> RunResult:
    """A result without the schema's check: an older harness's is good enough to be listed."""
    return json_report.from_dict(json.loads(path.read_bytes()))


def _when(line: RunLine) -> tuple[str, str]:
    """A name begins with the time of the run, which is all that a broken run tells of it."""
    return line.started.replace("-", "").replace(":", "") or line.name, line.name


def _line(path: Path) -> RunLine:
    try:
        return index.line(path.parent.name, _load(path))
    except (HarnessError, OSError, ValueError, RecursionError) as error:
        return index.unreadable(path.parent.name, f"{path.name}: {error}")
