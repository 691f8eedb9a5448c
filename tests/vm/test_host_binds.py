# SPDX-License-Identifier: GPL-2.0-only
"""A pair whose host is in charge: its kernel connects the TDIs, vfio-pci binds them to the guest.

What the host takes away while the guest holds mappings, looked at from both sides.
"""

from __future__ import annotations

import errno
import threading
import time

import pytest

from harness.core.assignment import connect
from harness.machines.platform_process import PlatformProcess
from harness.machines.remote import RemoteMachine
from harness.machines.tdi import Answer, GuestTdi
from harness.model.kernel import Role
from harness.stages.scenario import Scenario

pytestmark = pytest.mark.tdisp(plan="default", cell="model-B+host-binds+pair")

SIZE = 64 << 10
LARGE = 4 << 20
STATUS_DONE = 2
ABORTED = 21  # docs/platform.md
ENDS_S = 60  # a VMM that was killed, with all that it had pinned
DRIVER = "/sys/bus/pci/drivers/tdisp-emu-link"
# $d: the function 0 of the TDIs, $p: the host's port; both as directories of sysfs
FIND = """set -e
for x in /sys/bus/pci/devices/*; do
  case $(cat $x/vendor $x/device | tr -d '\\n') in
    0x1b360x0dee) d=${d:-$x} ;;
    0x1b360x0df0) p=$x ;;
  esac
done
"""


def on(host: RemoteMachine, command: str) -> str:
    """A command of the host's administrator."""
    done = host.run(FIND + command, timeout_s=60, check=True)
    return done.stdout.decode().strip()


def known(platform: PlatformProcess, tdi: GuestTdi) -> dict[str, object]:
    """The TDI as the platform has it."""
    states = platform.ask(op="state")["tdis"]
    return next(dict(state) for state in states if state["tdi"] == tdi.interface)


def used(tdi: GuestTdi) -> str:
    """Trusted, with a mapping that the device has read and written; its slot."""
    tdi.trusted()
    slot = tdi.must(f"map dma_map_phys {SIZE}")["slot"]
    tdi.must(f"roundtrip {slot}")
    return slot


def stopped_and_let_go(scenario: Scenario, tdi: GuestTdi, slot: str) -> None:
    """T=1 is refused, and what the guest still holds can be given back."""
    scenario.announce("tdi-state", tdi=tdi.interface)
    dma = tdi.must(f"dma write {slot} {SIZE} 1")
    assert (dma.number("status") == STATUS_DONE, dma.number("done")) == (False, 0)
    tdi.must(f"unmap {slot}")
    tdi.must("unbind")
    tdi.must("unlock")
    refused = tdi.ask("lock")
    assert refused.rc == -errno.ENOTCONN, refused


def works_in_another_guest(
    scenario: Scenario, host: RemoteMachine, platform: PlatformProcess
) -> None:
    """A guest that is started now has a TDI that is bound to it."""
    scenario.fresh(Role.GUEST)
    again = scenario.tdi()
    assert on(host, "cat $d/tsm/bound").startswith("tsm")
    used(again)
    assert known(platform, again)["state"] == "RUN"
    again.must("reset")


def test_the_host_connected_and_bound_it(
    host: RemoteMachine, platform: PlatformProcess, tdi: GuestTdi
) -> None:
    """The two kernels and the platform agree; nothing but the host's kernel has bound it."""
    state = known(platform, tdi)
    assert (state["connected"], state["bound"]) == (True, True)
    tsm = on(host, "cat $d/tsm/connect")
    assert tsm.startswith("tsm")
    assert on(host, "cat $d/tsm/bound") == tsm
    used(tdi)
    assert known(platform, tdi)["dma_enabled"]


def test_disconnected_in_use(
    scenario: Scenario, host: RemoteMachine, platform: PlatformProcess, tdi: GuestTdi
) -> None:
    """tsm/disconnect of the host, as the guest holds mappings. A new connection is not theirs."""
    slot = used(tdi)
    on(host, "cat $d/tsm/connect > $d/tsm/disconnect")
    state = known(platform, tdi)
    assert (state["state"], state["connected"], state["bound"]) == ("UNLOCKED", False, False)
    stopped_and_let_go(scenario, tdi, slot)
    host.run(connect(), timeout_s=60, check=True)
    assert on(host, "cat $d/tsm/connect").startswith("tsm")
    assert on(host, "cat $d/tsm/bound") == ""
    assert tdi.ask("lock").rc == -errno.ENOTCONN
    works_in_another_guest(scenario, host, platform)


def test_disconnected_while_dma_is_under_way(
    scenario: Scenario, host: RemoteMachine, platform: PlatformProcess, tdi: GuestTdi
) -> None:
    """The transfer that it hits fails, or the next one; nothing hangs, on either side."""
    tdi.trusted()
    slot = tdi.must(f"map dma_alloc_attrs {LARGE}")["slot"]
    done: list[Answer] = []

    def until_it_fails() -> None:
        while not done or done[-1].number("done") == LARGE:
            done.append(tdi.must(f"dma write {slot} {LARGE}"))

    worker = threading.Thread(target=until_it_fails)
    worker.start()
    time.sleep(1.0)
    scenario.announce("any", tdi=tdi.interface)
    on(host, "cat $d/tsm/connect > $d/tsm/disconnect")
    worker.join(120)
    assert not worker.is_alive()
    assert len(done) > 1
    if done[-1].number("reason") == ABORTED:
        # it was under way, which is no fault of a TLP; the next one is
        assert tdi.must(f"dma write {slot} {LARGE}").number("done") == 0
    assert known(platform, tdi)["state"] == "UNLOCKED"
    tdi.must(f"unmap {slot}")
    tdi.must("unbind")
    tdi.must("unlock")
    host.run(connect(), timeout_s=60, check=True)
    works_in_another_guest(scenario, host, platform)


def test_the_tsm_of_the_host_goes_in_use(
    scenario: Scenario, host: RemoteMachine, platform: PlatformProcess, tdi: GuestTdi
) -> None:
    """The driver of the host's port is unbound, as the guest holds mappings."""
    slot = used(tdi)
    on(host, f"echo ${{p##*/}} > {DRIVER}/unbind")
    assert not known(platform, tdi)["bound"]
    stopped_and_let_go(scenario, tdi, slot)
    on(host, f"echo ${{p##*/}} > {DRIVER}/bind")
    works_in_another_guest(scenario, host, platform)


def test_the_security_processor_is_removed_in_use(
    scenario: Scenario, host: RemoteMachine, platform: PlatformProcess, tdi: GuestTdi
) -> None:
    slot = used(tdi)
    on(host, "echo 1 > $p/remove")
    assert not known(platform, tdi)["bound"]
    stopped_and_let_go(scenario, tdi, slot)
    on(host, "echo 1 > /sys/bus/pci/rescan")
    works_in_another_guest(scenario, host, platform)


def test_the_vmm_is_killed_in_use(
    scenario: Scenario, host: RemoteMachine, platform: PlatformProcess, tdi: GuestTdi
) -> None:
    """The binding ends with the VM, the connection stays."""
    used(tdi)
    scenario.expect_end(Role.GUEST)
    host.run("kill -KILL $(cat /run/tdisp-vm-guest-*/pid)", timeout_s=60, check=True)
    deadline = time.monotonic() + ENDS_S
    while (state := known(platform, tdi))["bound"] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert (state["state"], state["connected"], state["bound"]) == ("UNLOCKED", True, False)
    assert on(host, "cat $d/tsm/bound") == ""
    works_in_another_guest(scenario, host, platform)
