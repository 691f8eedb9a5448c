# SPDX-License-Identifier: GPL-2.0-only
"""Text from consoles and logs made fit for a report: no control codes, no surprises, bounded.

Console text is whatever a broken kernel sent. Here it loses its terminal control sequences; other
control characters, lone surrogates and the marks that reorder text become visible.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

# ECMA-48: CSI sequences, OSC/DCS/APC/PM/SOS strings, and the short escapes.
_ANSI = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)"
    r"|\x1b[ -/]*[0-~]"
)
# What XML 1.0 section 2.2 forbids, C1 controls, and the bidirectional marks and overrides that make
# text read differently from what it is (CVE-2021-42574).
_UNFIT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff"
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)


def clean(text: str) -> str:
    """Text valid in XML and HTML, with LF line ends; unfit characters show as e.g. "<U+202E>"."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _UNFIT.sub(_visible, _ANSI.sub("", text))


def one_line(text: str, limit: int = 240) -> str:
    """Cleaned, white space folded to single spaces, cut to `limit` characters with "…"."""
    # The slice keeps a megabyte of reason cheap; cleaning only shortens or keeps what matters here.
    folded = " ".join(clean(text[: 4 * limit + 64]).split())
    return folded if len(folded) <= limit else folded[: limit - 1] + "…"


def plural(number: int, word: str) -> str:
    """ "1 test", "2 tests"."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def duration(seconds: float) -> str:
    """ "0.4 s", "12 s", "3 min 05 s", "2 h 07 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def moment(started: str) -> str:
    """ISO 8601 without the fraction of a second: "2026-11-22T19:42:41+00:00"."""
    return one_line(re.sub(r"(:\d\d)\.\d+", r"\1", started), 40)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A log, or its head and tail. note: what was left out or why there is none; "" if whole."""

    text: str
    note: str = ""


def clip(text: str, limit: int) -> Excerpt:
    """The first quarter and the last three quarters of `limit` characters, cut at line ends."""
    if len(text) <= limit:
        return Excerpt(text)
    head = text[: limit // 4]
    head = head[: head.rfind("\n") + 1] or head
    tail = text[-(limit - limit // 4) :]
    tail = tail[tail.find("\n") + 1 :] or tail
    cut = len(text) - len(head) - len(tail)
    note = f"{cut:,} of {len(text):,} characters left out in the middle"
    return Excerpt(f"{head}\n[... {note} ...]\n{tail}", note)


def tail(text: str, lines: int, limit: int) -> str:
    """The last `lines` lines, at most `limit` characters."""
    return "\n".join(text[-limit:].splitlines()[-lines:])


def read_log(run_dir: Path, relative: str, limit: int) -> Excerpt:
    """Head and tail of a log of the run, cleaned, about `limit` bytes. Never raises.

    Only files below `run_dir` are read: a run directory may come from elsewhere.
    """
    if not relative:
        return Excerpt("", "no log was written")
    try:
        path = (run_dir / relative).resolve()
        if not path.is_relative_to(run_dir.resolve()):
            return Excerpt("", "the log lies outside the run directory")
        data, size = _read_ends(path, limit)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        return Excerpt("", f"cannot read the log: {getattr(error, 'strerror', None) or error}")
    if size <= limit:
        return Excerpt(clean(data[0].decode("utf-8", "replace")))
    head, rest = (clean(part.decode("utf-8", "replace")) for part in data)
    note = f"{size - len(data[0]) - len(data[1]):,} of {size:,} bytes left out in the middle"
    return Excerpt(f"{head}\n[... {note}; the whole log is in {relative} ...]\n{rest}", note)


def _read_ends(path: Path, limit: int) -> tuple[tuple[bytes, bytes], int]:
    """((all, b""), size), or ((head, tail), size) cut at line ends when larger than `limit`."""
    if not path.is_file():
        raise FileNotFoundError(2, os.strerror(2))
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size <= limit:
            return (stream.read(limit), b""), size
        head = stream.read(limit // 4)
        head = head[: head.rfind(b"\n") + 1] or head
        stream.seek(size - (limit - limit // 4))
        rest = stream.read(limit)
        return (head, rest[rest.find(b"\n") + 1 :] or rest), size


def _visible(match: re.Match[str]) -> str:
    return f"<U+{ord(match.group()):04X}>"
