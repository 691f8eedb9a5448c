# SPDX-License-Identifier: GPL-2.0-only
"""mutants.json: what is known about mutants, for readers and for the verb's --resume. Pure.

A finding is good for one code base and one text of the mutant, so both are in it as digests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.core.mutants import Finding, State
from harness.errors import UserError

FORMAT = 1


@dataclass(slots=True)
class Record:
    """code: digest of what all mutants have in common. source: id of the kernel tree, "" before
    the first run. passed: the tests, as Caught-by has them, that pass without a mutant. faults: why
    the others cannot judge. findings: by name, with the digest of the mutant's text.
    """

    code: str
    source: str = ""
    passed: set[str] = field(default_factory=set)
    faults: tuple[str, ...] = ()
    findings: dict[str, tuple[str, Finding]] = field(default_factory=dict)

    def killed(self, name: str, digest: str) -> Finding | None:
        """The finding of a mutant that need not be run again."""
        known, finding = self.findings.get(name, ("", None))
        return finding if finding and known == digest and finding.state is State.KILLED else None


def to_text(record: Record) -> str:
    """The file."""
    data = {
        "format": FORMAT,
        "code": record.code,
        "source": record.source,
        "passed": sorted(record.passed),
        "baseline": list(record.faults),
        "mutants": [
            {
                "name": name,
                "state": finding.state.value,
                "notes": list(finding.notes),
                "digest": digest,
            }
            for name, (digest, finding) in record.findings.items()
        ],
    }
    return json.dumps(data, indent=1) + "\n"


def from_text(text: str, where: str) -> Record:
    """What to_text() wrote. UserError naming the file."""
    try:
        data = json.loads(text)
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
        findings = {
            str(one["name"]): (
                str(one["digest"]),
                Finding(State(one["state"]), tuple(map(str, one["notes"]))),
            )
            for one in data["mutants"]
        }
        passed = set(map(str, data["passed"]))
        return Record(str(data["code"]), str(data["source"]), passed, (), findings)
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise UserError(f"{where}: cannot be read: {exc}", hint="begin without --resume") from exc
