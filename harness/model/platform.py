# SPDX-License-Identifier: GPL-2.0-only
"""The emulated TEE-IO platform of a run: its settings, and what it saw."""

from __future__ import annotations

from dataclasses import dataclass

ALL_ONES = (1 << 64) - 1
KNOBS = ("model", "vtom", "locked_t0", "bme_clear", "c_bit", "tdis")
# what an entry of [[tests]] may say besides
ENTRY_KNOBS = (*KNOBS, "binds")
BY_HOST = "host"


@dataclass(frozen=True, slots=True)
class PlatformCell:
    """One setting of the platform: a cell of the matrix.

    model: "A", "B" or "N". vtom: suggested to the guest in model N. tdis: functions of the one
    device that is assigned. append: goes on the guest kernel's command line. nested: the guest is
    the one of a pair, and the host machine assigns the functions to it. binds: who connects the
    TDIs and binds them to the guest; "host": the kernel of the pair's host machine.
    """

    model: str = "B"
    vtom: int = ALL_ONES
    locked_t0: str = "allow"  # or "block"
    bme_clear: str = "error"  # or "ignore"
    c_bit: int = 51
    tdis: int = 2
    append: str = ""
    nested: bool = False
    binds: str = "platform"  # or "host"

    @property
    def by_host(self) -> bool:
        """Whether the host machine has the host port of the security processor."""
        return self.binds == BY_HOST

    @property
    def name(self) -> str:
        """E.g. "model-A", "model-N+vtom-0x800000000000": the model and what is not the default."""
        words = [f"model-{self.model}"]
        if self.vtom != ALL_ONES:
            words.append(f"vtom-{self.vtom:#x}")
        if self.locked_t0 != "allow":
            words.append(f"t0-{self.locked_t0}")
        if self.bme_clear != "error":
            words.append(f"bme-{self.bme_clear}")
        if self.c_bit != 51:
            words.append(f"cbit-{self.c_bit}")
        if self.tdis != 2:
            words.append(f"tdis-{self.tdis}")
        if self.by_host:
            words.append("host-binds")
        if self.nested:
            words.append("pair")
        return "+".join(words)


@dataclass(frozen=True, slots=True)
class PlatformPlan:
    """The `[platform]` table of a plan. axes: knob -> values, in the order of the file."""

    base: PlatformCell
    axes: tuple[tuple[str, tuple[str | int, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a negative control must show. splats: kinds of kernel reports; faults: reasons.

    All of them have to occur, and what is listed here fails no test.
    """

    splats: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


NOTHING_EXPECTED = Expectation()


@dataclass(frozen=True, slots=True)
class PlatformFault:
    """A DMA that the platform blocked. t: seconds since the epoch; addresses in hexadecimal."""

    t: float
    tdi: int
    bdf: str
    trusted: bool  # the T bit
    iova: str
    gpa: str  # "" when nothing was resolved
    direction: str  # "read" or "write"
    length: int
    reason: str
    announced: bool


@dataclass(frozen=True, slots=True)
class MissingFault:
    """An announced fault that did not happen."""

    tdi: int
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class PlatformTransition:
    """A TDISP transition. t: seconds since the epoch; states as UNLOCKED, LOCKED, RUN, ERROR."""

    t: float
    tdi: int
    before: str
    after: str
    cause: str


@dataclass(frozen=True, slots=True)
class PlatformEvents:
    """What the platform saw while a test ran. In a result long lists are cut.

    unannounced: number of faults that nobody announced, also of those that were cut.
    dropped: number of faults and transitions that were cut.
    """

    tlps_ok: int = 0
    tlps_blocked: int = 0
    unannounced: int = 0
    faults: tuple[PlatformFault, ...] = ()  # the unannounced ones first
    missing: tuple[MissingFault, ...] = ()
    transitions: tuple[PlatformTransition, ...] = ()
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class CellRecord:
    """One cell of the matrix as it was run. Times are seconds since the start of the run.

    start_s: when its first machine was begun; end_s: when its last machine had ended.
    test_s: time inside tests; what is left is booting and housekeeping.
    """

    name: str
    model: str
    vtom: str  # hexadecimal
    locked_t0: str
    bme_clear: str
    c_bit: int
    tdis: int
    append: str
    boots: int = 0
    start_s: float = 0.0
    end_s: float = 0.0
    test_s: float = 0.0
