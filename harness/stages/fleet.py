# SPDX-License-Identifier: GPL-2.0-only
"""The machines of a run: booted when first needed, brought back after a crash, ended at the end.

solo: the guest is a VM of the controller, booted directly into the kernel under test.
pair: the host machine boots its own kernel, gets the kernel under test over SSH and kexec, and the
guest is started on it. A plan for the pair may have cells in which the guest is a VM of the
controller all the same: it stands alone. The VMs of the pair end before it begins, and the reverse,
so that no more memory is taken than the pair's.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from harness.adapters import accel as acceleration
from harness.adapters.live import LiveRecord
from harness.adapters.ssh_keys import generate_key
from harness.core.attribution import attribute
from harness.core.machine_end import EndReport
from harness.core.pins import qemu_line
from harness.core.plan import all_cells
from harness.core.splat import find_splats
from harness.core.splat_records import not_recorded, records
from harness.core.splat_rules import RuleSet
from harness.errors import HarnessError, InfraError, KernelError, MachineError
from harness.machines.lab import LabMachine
from harness.machines.nested import NestedMachine
from harness.machines.platform_process import PlatformProcess
from harness.machines.qemu import QemuMachine
from harness.model.kernel import KernelBuild, Role
from harness.model.machine import Accel, BootFailure, MachineEnd
from harness.model.options import RunOptions
from harness.model.plan import Topology
from harness.model.progress import Progress
from harness.model.results import Failure, MachineRecord, Outcome, TestResult
from harness.stages import selftest
from harness.stages.platform import PlatformStage
from harness.stages.provision import Provisions
from harness.stages.reach import ssh_argv, write_key
from harness.stages.recorder import Recorder
from harness.stages.vms import Login, VmMaker

AnyMachine = QemuMachine | NestedMachine | LabMachine

# The boot time of a guest on the machines the timeouts of plans were written for.
_REFERENCE_BOOT_S = 5.0
_MAX_SPEED = 12.0
# for an answer of a machine that may be slow, or dead
_PATIENCE_S = 30.0
# Nested under TCG: further starts of a guest that fell silent.
_EMULATION_RETRIES = 2


def _nothing() -> None:
    pass


def with_its_guest(role: Role) -> tuple[Role, ...]:
    """A machine and what runs on it, in the order in which they end."""
    return (Role.GUEST, Role.HOST) if role is Role.HOST else (role,)


@dataclass(slots=True)
class _Slot:
    """One role's machine. installed: the kselftests on it, for this boot."""

    machine: AnyMachine
    installed: tuple[str, ...] = ()
    cell: str = ""  # of the platform's matrix, "" without a platform
    blamed: bool = False  # how it ended, if it did, is on record with a test or as a failure


class Fleet:
    """get() the machine of a role, tell after_test() what became of a test, and close().

    meanwhile: done once, in a thread, while the first machine boots.
    """

    def __init__(
        self,
        options: RunOptions,
        builds: Mapping[Role, KernelBuild],
        provisions: Provisions,
        recorder: Recorder,
        progress: Progress,
        *,
        rules: RuleSet,
        live: LiveRecord,
        meanwhile: Callable[[], None] = _nothing,
    ) -> None:
        self.token = secrets.token_hex(16)
        # per role, the "collection:test" lines that are installed; None: all
        self.wanted: dict[Role, frozenset[str]] = {}
        self._options = options
        self._builds = builds
        self._provisions = provisions
        self._recorder = recorder
        self._progress = progress
        self._rules = rules
        self._live = live
        self._meanwhile = meanwhile
        self._pool = ThreadPoolExecutor(1, "while booting")
        self._kits: dict[Role, Future[selftest.Kit]] = {}
        self._slots: dict[Role, _Slot] = {}
        self._broken: dict[tuple[Role, str], str] = {}
        self._boots: dict[str, int] = {}  # by the machine's name
        key = generate_key()
        key_file = write_key(recorder.run_dir, key)
        live.add_path(key_file)
        self._cells = all_cells(options.plan)
        self.platform: PlatformStage | None = None
        if self._cells:
            self.platform = PlatformStage(self._cells, recorder, live.add_path)
        self.accel = self._probe()
        recorder.environment(
            qemu=f"{provisions.qemu.version} ({provisions.qemu.origin})",
            accel=self.accel.name,
            accel_reason=self.accel.reason,
        )
        progress.say(f"accelerator: {self.accel.name.upper()} ({self.accel.reason})")
        login = Login(recorder.run_dir, key_file, key.public, rules, live.add_path)
        self._vms = VmMaker(options.plan, builds, provisions, login, progress)

    # machines

    def get(self, role: Role, cell: str = "") -> AnyMachine:
        """The role's machine, up, on its kernel, with the kselftests installed.

        cell: of the platform's matrix, "" for none; a machine in another cell is replaced.
        KernelError when its kernel does not come up (and again at each further call: it is not
        tried twice), MachineError when the machine itself fails.
        """
        if (role, cell) in self._broken:
            raise InfraError(f"{role.value}: no machine: {self._broken[role, cell]}")
        slot = self._slots.get(role)
        if slot is not None and slot.cell == cell:
            return slot.machine
        self.discard(role)
        self._make_room(role, cell)
        try:
            slot = self._boot(role, cell)
        except KernelError as exc:
            self._broken[role, cell] = exc.message.splitlines()[0]
            raise
        return slot.machine

    def alone(self, role: Role, cell: str = "") -> bool:
        """Whether the role's machine is a guest without a host machine, in a pair or in solo."""
        if role is Role.HOST:
            return False
        known = self._cells.get(cell)
        return self._options.topology is Topology.SOLO if known is None else not known.nested

    def has_tests(self, role: Role, cell: str = "") -> bool:
        """Whether kselftests run there: a host machine that does not bind only has its guest."""
        known = self._cells.get(cell)
        return role is Role.GUEST or known is None or known.by_host

    def name(self, role: Role, cell: str = "") -> str:
        """Of the role's machine: its console and its records go by it."""
        apart = self._options.topology is Topology.PAIR and self.alone(role, cell)
        return f"{role.value}-solo" if apart else role.value

    def _make_room(self, role: Role, cell: str) -> None:
        """End the VMs that must not stand beside the one to be booted."""
        host, guest = self._slots.get(Role.HOST), self._slots.get(Role.GUEST)
        if self.alone(role, cell) and host is not None and host.machine.kind == "qemu":
            self._progress.say("host: ends, the next guest is a VM of this machine")
            self.discard(Role.HOST)
        if role is Role.HOST and guest is not None and self.alone(Role.GUEST, guest.cell):
            self.discard(Role.GUEST)

    def broken(self, role: Role, cell: str = "") -> bool:
        """Whether the role's kernel did not come up: no further attempt is of use."""
        return (role, cell) in self._broken

    def beside(self, role: Role) -> tuple[AnyMachine, ...]:
        """The machines of other roles that are up."""
        return tuple(slot.machine for other, slot in self._slots.items() if other is not role)

    def installed(self, role: Role) -> tuple[str, ...]:
        """The "collection:test" lines on the role's machine."""
        return self._slots[role].installed

    def speed(self, role: Role) -> float:
        """How much longer things take here than on the reference machine, at least 1."""
        slot = self._slots[role]
        return min(max(slot.machine.boot_s / _REFERENCE_BOOT_S, 1.0), _MAX_SPEED)

    def after_test(self, role: Role, result: TestResult) -> None:
        """A machine that a test broke, or may have, is replaced when the next test needs it."""
        broke = result.outcome in (Outcome.CRASH, Outcome.INFRA)
        on_host = role is Role.GUEST and not self.alone(role, result.cell)
        if broke and on_host and self._host_ended(result):
            return
        if broke or (result.outcome is Outcome.TIMEOUT and result.exit_status is None):
            self._progress.say(f"{role.value}: fresh machine after {result.outcome.value}")
            self.discard(role, blamed=result.outcome is not Outcome.INFRA)

    def _host_ended(self, result: TestResult) -> bool:
        """Whether the guest's test ended because its host machine did: that is replaced then."""
        host = self._slots.get(Role.HOST)
        if host is None:
            return False
        found = host.machine.report()
        if found.end is MachineEnd.ALIVE:
            return False
        self._ended(Role.HOST, host.machine, found, f"while {result.key} ran on the guest")
        self._progress.say(f"host: fresh machine after: {found.what}")
        self.discard(Role.HOST, blamed=True)
        return True

    def _ended(self, role: Role, machine: AnyMachine, found: EndReport, when: str) -> None:
        """Record that a machine ended by itself. Where only QEMU did, no kernel is to blame."""
        message = f"{machine.name}: {found.what}, {when}"
        if found.end is MachineEnd.QEMU_DIED:
            self._recorder.note(message)
            return
        self._recorder.failure(
            Failure(
                kind="crash",
                role=role.value,
                message=message,
                log=machine.console.path.name,
                excerpt=machine.console.tail(),
            )
        )

    def discard(self, role: Role, *, blamed: bool = False) -> None:
        """End the role's machine; what runs on it goes first.

        blamed: how it ended, if it did, was expected or is on record. Otherwise it is a failure.
        """
        trouble: list[HarnessError] = []
        for ended in with_its_guest(role):
            slot = self._slots.pop(ended, None)
            if slot is None:
                continue
            slot.blamed |= blamed
            try:
                self._end(ended, slot)
            except HarnessError as exc:
                trouble.append(exc)
        if trouble:
            raise trouble[0]

    def close(self) -> None:
        """End all machines and search what their consoles say outside of tests."""
        try:
            self.discard(Role.HOST)
        finally:
            try:
                if self.platform is not None:
                    self.platform.end()
            finally:
                self._pool.shutdown(cancel_futures=True)

    def how_to_reach(self) -> list[str]:
        """For --keep and boot: write ssh-<machine>.json and tell the commands."""
        lines = []
        for slot in self._slots.values():
            name = slot.machine.name
            path = self._recorder.run_dir / f"ssh-{name}.json"
            path.write_text(json.dumps(ssh_argv(slot.machine.ssh.endpoint, path.with_suffix(""))))
            self._live.add_path(path)
            lines.append(f"{name} is up: tdisp-harness shell {name}")
        return lines

    # booting

    def _probe(self) -> Accel:
        if self._options.lab is not None:
            return LabMachine.accel
        return self._accel_of_this_machine()

    def _accel_of_this_machine(self) -> Accel:
        kernel = next(iter(self._builds.values())).image
        return acceleration.probe(self._provisions.qemu, kernel, self._options.cache)

    def _boot(self, role: Role, cell: str) -> _Slot:
        lab = self._options.lab
        if lab is not None and lab.role is role:
            machine: AnyMachine = LabMachine(lab, self._recorder.run_dir, self._rules)
        elif role is Role.HOST:
            machine = self._vms.host(self.accel, self._platform(cell))
        elif self.alone(role, cell):
            accel = self._accel_of_this_machine()
            machine = self._vms.guest(self.name(role, cell), accel, self._platform(cell))
        else:
            machine = self._nested(cell)
        slot = _Slot(machine, cell=cell)
        self._slots[role] = slot
        kits = self._kit(role)
        self._boots[machine.name] = self._boots.get(machine.name, 0) + 1
        try:
            self._bring_up(role, machine)
            if self.has_tests(role, cell):
                kit = kits.result()
                selftest.install(machine, kit)
                slot.installed = kit.listed
            if role is Role.HOST and self.platform is not None and cell:
                self.platform.forget()  # boot firmware, two kernels: nobody's doing
        except BaseException as exc:
            trouble = self.platform.trouble() if self.platform and cell else ""
            self.discard(role, blamed=True)
            if trouble and isinstance(exc, HarnessError):
                # a kernel whose devices went away is not to blame
                raise MachineError(f"{trouble}, while the {role.value} booted") from exc
            raise
        self._record(role, machine, MachineEnd.ALIVE)
        if machine.argv:
            where = f"{role.value} in {cell}" if cell else role.value
            line = qemu_line(machine.argv)
            self._recorder.pins.pin(f"QEMU line of the {where}", line)
        return slot

    def _kit(self, role: Role) -> Future[selftest.Kit]:
        """The role's kselftests, packed once, while its first machine boots."""
        made = self._kits.get(role)
        if made is None or (made.done() and made.exception() is not None):
            first = not self._kits
            build, wanted = self._builds[role], self.wanted.get(role)
            modules = not self._deploys(role)
            self._kits[role] = self._pool.submit(selftest.kit, build, wanted, modules=modules)
            if first:
                self._pool.submit(self._meanwhile)
        return self._kits[role]

    def _platform(self, cell: str) -> PlatformProcess | None:
        """A fresh platform for the VM that is about to start: its QEMU connects at once."""
        if self.platform is None or not cell:
            return None
        process = self.platform.start(cell)
        self._progress.say(f"platform: {cell}, pid {process.pid}")
        return process

    def _nested(self, cell: str) -> NestedMachine:
        """A guest on the host machine. In a cell, that machine has the cell's platform."""
        if self.platform is not None and cell and self.platform.trouble():
            self.discard(Role.HOST)
        host = self.get(Role.HOST, cell)
        if self.platform is not None and cell:
            # no guest's doing: boot firmware, two kernels, and the guest that was there before
            self.platform.forget()
        return self._vms.nested(host, self._cells.get(cell))

    def _deploys(self, role: Role) -> bool:
        """Whether the role's machine boots a kernel of its own before the one under test."""
        lab = self._options.lab
        return role is Role.HOST or (lab is not None and lab.role is role)

    def _bring_up(self, role: Role, machine: AnyMachine) -> None:
        build = self._builds[role]
        self._start(machine)
        self._progress.say(f"{machine.name}: answers over SSH after {machine.boot_s:.1f} s")
        if self._deploys(role):
            self._progress.say(f"{machine.name}: deploying {build.release} over SSH and kexec")
            machine.deploy(build)
            self._progress.say(
                f"{machine.name}: {build.release} answers {machine.boot_s:.1f} s after kexec"
            )
        self._progress.say(f"{machine.name}: build id {build.build_id[:12]} proved")

    def _start(self, machine: AnyMachine) -> None:
        """Start; a nested guest that the emulation lost is started again, and that is said.

        QEMU's emulated SVM stops a guest now and then, without a word of its kernel (a silent hang
        or a reset). A panic is the kernel's own and never tried again.
        """
        emulated = isinstance(machine, NestedMachine) and self.accel.name == "tcg"
        begin: Callable[[], None] = machine.start
        for left in range(_EMULATION_RETRIES if emulated else 0, -1, -1):
            try:
                begin()
                return
            except KernelError as exc:
                end = exc.detail.end if isinstance(exc.detail, BootFailure) else None
                if left == 0 or end not in (MachineEnd.SILENT_HANG, MachineEnd.REBOOT):
                    raise
                said = exc.message.splitlines()[0]
                self._progress.say(f"{said}: starting it again")
                self._recorder.note(f"{said}: started again, as the emulation may have lost it")
                self._boots[machine.name] += 1
                begin = machine.restart

    # ending

    def _end(self, role: Role, slot: _Slot) -> None:
        """End a machine; whatever fails on the way, its console is searched."""
        machine, end = slot.machine, MachineEnd.NEVER_BOOTED
        try:
            if machine.boots:
                end = self._state(role, slot)
            if isinstance(machine, LabMachine) and not machine.recover(end):
                self._progress.say(f"{machine.name}: does not come back: it needs a person")
        finally:
            try:
                machine.close()
                if self.platform is not None and slot.cell:
                    if role is Role.HOST or self.alone(role, slot.cell):
                        self.platform.end()
                    else:
                        self.platform.guest_ended()
            finally:
                self._record(role, machine, end)
                self._scan(role, machine)

    def _state(self, role: Role, slot: _Slot) -> MachineEnd:
        """How the machine is before it is ended: when it ended by itself, that is a failure."""
        machine = slot.machine
        found = machine.report()
        if found.end in (MachineEnd.SILENT_HANG, MachineEnd.SSH_LOST) and not slot.blamed:
            found = machine.report(_PATIENCE_S)  # it may only be slow
        if found.end is not MachineEnd.ALIVE and not slot.blamed:
            self._ended(role, machine, found, "when no test ran")
        return found.end

    def _record(self, role: Role, machine: AnyMachine, end: MachineEnd) -> None:
        build = self._builds[role]
        self._recorder.machine(
            MachineRecord(
                name=machine.name,
                role=role.value,
                kind=machine.kind,
                accel=machine.accel.name,
                console=machine.console.path.name,
                kernel_release=build.release,
                build_id=build.build_id,
                boots=self._boots[machine.name],
                boot_s=round(machine.boot_s, 2),
                end=end.value,
                qemu_argv=machine.argv,
            )
        )

    def _scan(self, role: Role, machine: AnyMachine) -> None:
        """Splats outside of any test: those within tests were recorded with their test."""
        data = machine.console.read() if machine.console.path.exists() else b""
        found = (
            (splat, test.partition(":")[2])
            for splat, test in attribute(data, find_splats(data, self._rules), self.token)
        )
        new = not_recorded(found, self._recorder.result.splats, machine.name)
        self._recorder.splats(records(data, new, (machine.name, role.value)))
