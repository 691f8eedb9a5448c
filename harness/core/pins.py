# SPDX-License-Identifier: GPL-2.0-only
"""What a run was made of, as names and values that another run can be held against. Pure.

A pin is a short text: an identity (a hash, a commit) with the words a person needs. reproduce.sh
carries the pins of its run; the run that it starts is refused where it finds anything else.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence

from harness.errors import UserError

_DIRECTORY = re.compile(r"(?<![\w/])(?:/[\w.@%+~-]+)+/(?=[\w.@%+~-])")
_VOLATILE = (
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
    (re.compile(r"\bport=\d+"), "port=PORT"),
    (re.compile(r"\bserial=[0-9a-f]{16,}"), "serial=SERIAL"),
    (re.compile(r"\b[0-9a-f]{32,128}\b"), "HASH"),
)
_FIRST_OPTION = "-nodefaults"


def load(text: str, where: str) -> dict[str, str]:
    """The pins of a file that reproduce.sh wrote. UserError naming the file."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise UserError(f"{where}: not JSON: {exc}") from exc
    if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
        raise UserError(f"{where}: expected an object of strings, as reproduce.sh writes it")
    return data


def qemu_line(argv: Sequence[str]) -> str:
    """A QEMU command line without what differs from run to run and from machine to machine.

    Directories, ports, serial numbers and hashes go: what files hold is pinned by itself.
    """
    start = argv.index(_FIRST_OPTION) if _FIRST_OPTION in argv else min(1, len(argv))
    words = []
    for word in argv[start:]:
        plain = _DIRECTORY.sub("", word)
        for pattern, name in _VOLATILE:
            plain = pattern.sub(name, plain)
        words.append(plain)
    return " ".join(words)


class PinBook:
    """Collects the pins of a run, and holds them against those of the run to be reproduced.

    allow: a difference is said, by `say`, and no error.
    """

    def __init__(
        self,
        expected: Mapping[str, str] | None = None,
        *,
        allow: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        self._expected = dict(expected or {})
        self._allow = allow
        self._say = say
        self._said: set[str] = set()
        self.found: dict[str, str] = {}

    def pin(self, name: str, value: str, hint: str = "") -> None:
        """Note one. UserError when the original run had another value; `hint` tells what helps."""
        self.found[name] = value
        wanted = self._expected.get(name)
        if wanted is None or wanted == value:
            return
        message = f"reproduce: {name} differs: {difference(wanted, value)}"
        if not self._allow:
            anyway = "REPRODUCE_ANYWAY=1 (or --allow-differences) runs with what is there"
            raise UserError(message, hint=f"{hint}; {anyway}" if hint else anyway)
        if message not in self._said:
            self._said.add(message)
            self._say(f"note: {message}")


def difference(wanted: str, found: str) -> str:
    """ "the original run had X, this one finds Y"; of long values only the words that differ."""
    old, new = wanted.split(), found.split()
    if len(old) > 8 and len(new) > 8:
        matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
        parts = [
            (" ".join(old[i:j]), " ".join(new[k:m]))
            for tag, i, j, k, m in matcher.get_opcodes()
            if tag != "equal"
        ]
        listed = "; ".join(f"{a or 'nothing'} became {b or 'nothing'}" for a, b in parts[:5])
        return f"{listed}{' ...' if len(parts) > 5 else ''}"
    return f"the original run had {wanted or 'nothing'}, this one finds {found or 'nothing'}"
