# SPDX-License-Identifier: GPL-2.0-only
"""What the host does while the guest uses its device: on real machines, judged from outside."""

from __future__ import annotations

import threading
import time

import pytest

from harness.machines.platform_process import PlatformProcess
from harness.machines.remote import RemoteMachine
from harness.machines.tdi import Answer, GuestTdi
from harness.model.kernel import Role
from harness.stages.scenario import Scenario
from tests.vm.children import children_with

pytestmark = pytest.mark.tdisp(plan="trust", cell="model-B")

SIZE = 64 << 10
LARGE = 4 << 20
STATUS_DONE = 2
EBUSY = -16
ABORTED = 21  # docs/platform.md


def of_the_platform(platform: PlatformProcess, tdi: GuestTdi) -> dict[str, object]:
    """The TDI as the platform has it, not as the guest says."""
    states = platform.ask(op="state")["tdis"]
    return next(dict(state) for state in states if state["tdi"] == tdi.interface)


def test_the_host_takes_a_tdi_away_in_use(
    scenario: Scenario, platform: PlatformProcess, tdi: GuestTdi
) -> None:
    """Host-initiated unbind: T=1 stops at once, the guest's unmap and driver unbind stay safe.

    When the host gives it back, the guest can lock it again.
    """
    tdi.trusted()
    slot = tdi.must(f"map dma_map_phys {SIZE}")["slot"]
    tdi.must(f"roundtrip {slot}")
    assert of_the_platform(platform, tdi)["dma_enabled"]
    platform.ask(op="unbind", tdi=tdi.interface)
    assert of_the_platform(platform, tdi)["state"] != "RUN"
    scenario.announce("tdi-state", tdi=tdi.interface)
    dma = tdi.must(f"dma write {slot} {SIZE} 1")
    assert (dma.number("status") == STATUS_DONE, dma.number("done")) == (False, 0)
    tdi.must(f"unmap {slot}")
    tdi.must("unbind")
    assert not of_the_platform(platform, tdi)["dma_enabled"]
    platform.ask(op="bind", tdi=tdi.interface)
    tdi.trusted()
    slot = tdi.must(f"map dma_map_phys {SIZE}")["slot"]
    tdi.must(f"roundtrip {slot}")


def test_an_error_while_dma_is_under_way(platform: PlatformProcess, tdi: GuestTdi) -> None:
    """ERROR amid transfers: the one it hits fails, nothing hangs, and unlock recovers."""
    tdi.trusted()
    slot = tdi.must(f"map dma_alloc_attrs {LARGE}")["slot"]
    done: list[Answer] = []

    def until_it_fails() -> None:
        while not done or done[-1].number("done") == LARGE:
            done.append(tdi.must(f"dma write {slot} {LARGE}"))

    worker = threading.Thread(target=until_it_fails)
    worker.start()
    time.sleep(1.0)
    platform.ask(op="announce", tdi=tdi.interface, reason="any", count=1)
    platform.ask(op="error", tdi=tdi.interface)
    worker.join(120)
    assert not worker.is_alive()
    assert len(done) > 1
    if done[-1].number("reason") == ABORTED:
        # it was under way, which is no fault of a TLP; the next one is
        assert tdi.must(f"dma write {slot} {LARGE}").number("done") == 0
    assert of_the_platform(platform, tdi)["state"] == "ERROR"
    tdi.must(f"unmap {slot}")
    tdi.must("reset")
    assert of_the_platform(platform, tdi)["state"] == "UNLOCKED"
    tdi.trusted()
    slot = tdi.must(f"map dma_map_phys {SIZE}")["slot"]
    tdi.must(f"roundtrip {slot}")


def test_trust_does_not_change_under_a_driver(platform: PlatformProcess, tdi: GuestTdi) -> None:
    """Both sides look: the guest gets -EBUSY, and the platform saw no change."""
    tdi.must("to locked tcb")
    tdi.must("bind")
    slot = tdi.must(f"map dma_map_phys {SIZE}")["slot"]
    assert [tdi.ask(command).rc for command in ("accept", "unlock")] == [EBUSY, EBUSY]
    assert of_the_platform(platform, tdi)["state"] == "LOCKED"
    tdi.must(f"unmap {slot}")


def test_a_vm_ends_while_it_holds_mappings(scenario: Scenario, tdi: GuestTdi) -> None:
    """The next guest finds an unlocked TDI, private pages, and DMA that works."""
    tdi.trusted()
    tdi.must(f"map dma_map_phys {SIZE}")
    scenario.expect_end(Role.GUEST)
    for child in children_with("process=tdisp-guest"):
        child.kill()
    scenario.fresh(Role.GUEST)
    again = scenario.tdi()
    assert again.state() == "unlocked"
    again.trusted()
    slot = again.must(f"map dma_map_phys {SIZE}")["slot"]
    again.must(f"roundtrip {slot}")


def test_a_second_guest_test_starts_clean(guest: RemoteMachine, tdi: GuestTdi) -> None:
    """A scenario leaves nothing to the next one on the same machine."""
    assert tdi.state() == "unlocked"
    assert guest.run("true", timeout_s=30).exit_status == 0
