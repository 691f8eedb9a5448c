# SPDX-License-Identifier: GPL-2.0-only
"""What a person sees of a running platform: a live table on a terminal, else plain lines."""

from __future__ import annotations

import time
from typing import Any, Protocol, TextIO

from harness.emulator.platform import Platform

_REFRESH_S = 0.25
_TLPS_SHOWN = 12
# what a log reader wants without asking; tlp "ok" and command records would drown it
_SPOKEN = {"transition", "client", "client-end", "client-refused", "flr", "reset", "check"}


class View(Protocol):
    """Shown from the server's loop; must be cheap when nothing changed."""

    def refresh(self) -> None: ...

    def close(self) -> None: ...


class Nothing:
    """For a platform inside another program."""

    def refresh(self) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to give back."""


class PlainLines:
    """One line per notable event."""

    def __init__(self, platform: Platform, out: TextIO) -> None:
        self._out = out
        platform.log.listeners.append(self._event)

    def _event(self, record: dict[str, Any]) -> None:
        blocked = record["event"] == "tlp" and record["verdict"] == "blocked"
        if blocked or record["event"] in _SPOKEN:
            print(describe(record), file=self._out, flush=True)

    def refresh(self) -> None:
        """Lines are printed as they happen."""

    def close(self) -> None:
        """Nothing to give back."""


class LiveTable:
    """TDI states and the last TLPs, with rich."""

    def __init__(self, platform: Platform) -> None:
        from rich.live import Live  # noqa: PLC0415  (a pipe does not pay for it)

        self._platform = platform
        self._next = 0.0
        self._live = Live(self._render(), auto_refresh=False)
        self._live.start()

    def _render(self) -> Any:
        from rich.console import Group  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415

        knobs = self._platform.knobs
        states = Table(title=f"TDIs (model {knobs.model.value})")
        for heading in ("TDI", "BDF", "state", "bound", "bus master", "private DMA", "generation"):
            states.add_column(heading)
        for row in state_rows(self._platform):
            states.add_row(*row)
        tlps = Table(title="last TLPs")
        for heading in ("BDF", "T", "direction", "IOVA", "GPA", "bytes", "verdict"):
            tlps.add_column(heading)
        records = [r for r in self._platform.log.recent if r["event"] == "tlp"]
        for record in records[-_TLPS_SHOWN:]:
            verdict = record["verdict"] if record["reason"] == "none" else record["reason"]
            cells = (record["bdf"], record["T"], record["dir"], record["iova"], record["gpa"])
            tlps.add_row(*(str(cell) for cell in cells), str(record["len"]), verdict)
        return Group(states, tlps)

    def refresh(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _REFRESH_S
            self._live.update(self._render(), refresh=True)

    def close(self) -> None:
        self._live.update(self._render(), refresh=True)
        self._live.stop()


def state_rows(platform: Platform) -> list[tuple[str, ...]]:
    """One row per TDI, as text."""

    def yes(value: bool) -> str:
        return "yes" if value else "no"

    return [
        (
            str(tdi.index),
            tdi.bdf,
            tdi.state.name,
            yes(tdi.bound),
            yes(function.config.bus_master),
            yes(tdi.dma_enabled),
            str(tdi.generation),
        )
        for tdi, function in zip(platform.tdis, platform.tdi_functions, strict=True)
    ]


def describe(record: dict[str, Any]) -> str:
    """A record as one line for a person."""
    fields = {key: value for key, value in record.items() if key not in ("t", "event")}
    return f"{record['event']}: " + " ".join(f"{key}={value}" for key, value in fields.items())


def choose(platform: Platform, out: TextIO | None) -> View:
    """The view that suits `out`; None: nobody looks."""
    if out is None:
        return Nothing()
    return LiveTable(platform) if out.isatty() else PlainLines(platform, out)
