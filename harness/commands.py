# SPDX-License-Identifier: GPL-2.0-only
"""What each verb of the command line does."""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness import layout
from harness.core import compare as comparison
from harness.core import ktap, pins, splat
from harness.core.plan import MAX_REPEAT, in_topology, matrix, parse_plan
from harness.core.splat_rules import load_rules
from harness.errors import UserError, cause
from harness.model.kernel import Role, SourceSpec
from harness.model.lab import LabSpec
from harness.model.options import RunOptions
from harness.model.plan import Plan, Topology


def _series(arguments: Sequence[str]) -> tuple[tuple[Role, Path], ...]:
    found = []
    for argument in arguments:
        role, equals, path = argument.partition("=")
        if not equals or not path or role not in [r.value for r in Role]:
            raise UserError(
                f"--series {argument}: expected ROLE=PATH",
                hint="e.g. --series guest=my-series/ (roles: host, guest)",
            )
        if not Path(path).exists():  # told now, not when the source has been downloaded
            raise UserError(f"--series {argument}: no such file or directory")
        found.append((Role(role), Path(path)))
    return tuple(found)


def _with_repeats(plan: Plan, arguments: argparse.Namespace) -> Plan:
    """The plan with --repeat and --infra-retries in the place of its own numbers."""
    given = {}
    for key in ("repeat", "infra_retries"):
        value = getattr(arguments, key, None)
        if value is None:
            continue
        if not 0 <= value <= MAX_REPEAT:
            option = key.replace("_", "-")
            raise UserError(f"--{option} {value}: expected 0 to {MAX_REPEAT}")
        given[key] = value
    return replace(plan, repeats=replace(plan.repeats, **given))


def _pins(path: Path | None) -> dict[str, str]:
    """The pins of --pins."""
    if path is None:
        return {}
    try:
        return pins.load(path.read_text(encoding="utf-8"), f"--pins {path}")
    except (OSError, UnicodeDecodeError) as exc:
        raise UserError(f"--pins {path}: {cause(exc)}") from exc


def _package_sha256(known: Mapping[str, str]) -> str:
    """Of the source package that was pinned, "" without."""
    found = re.search(r"\bsha256 ([0-9a-f]{64})$", known.get("source", ""))
    return found[1] if found else ""


def run_options(arguments: argparse.Namespace, command: Sequence[str]) -> RunOptions:
    """The options of `run`, `build` and `boot`; UserError names the option or the plan's key."""
    path = layout.plan_file(arguments.plan)
    try:
        text = path.read_text()
    except OSError as exc:
        known = ", ".join(sorted(p.stem for p in layout.PLANS.glob("*.toml")))
        raise UserError(f"{path}: {exc.strerror}", hint=f"plans: {known}") from exc
    except UnicodeDecodeError as exc:
        raise UserError(f"{path}: not UTF-8: {exc}") from exc
    plan = _with_repeats(parse_plan(text, str(path), path.stem), arguments)
    if arguments.ref is not None and arguments.tree is None:
        raise UserError("--ref: needs --tree", hint="--ref names a commit of the tree")
    lab = _lab(arguments)
    topology = _topology(arguments, plan, lab)
    plan = in_topology(plan, topology)
    if arguments.jobs < 1:
        raise UserError(f"--jobs {arguments.jobs}: expected 1 or more")
    if arguments.tree is not None:
        source = SourceSpec(tree=arguments.tree, ref=arguments.ref or "HEAD")
    elif arguments.tarball is not None:
        source = SourceSpec(tarball=arguments.tarball)
    else:
        source = SourceSpec(package=plan.package)
    known_pins = _pins(arguments.pins)
    source = replace(source, sha256=_package_sha256(known_pins)) if source.package else source
    return RunOptions(
        plan=plan,
        plan_text=text,
        plan_file=arguments.plan,
        topology=topology,
        source=source,
        extra_series=_series(arguments.series),
        without_builtin=frozenset(Role(role) for role in arguments.no_builtin_series),
        expression=getattr(arguments, "expression", ""),
        runs_dir=arguments.runs_dir.absolute(),
        cache=layout.cache_directory(),
        jobs=arguments.jobs,
        keep=getattr(arguments, "keep", False),
        command=tuple(command),
        pins=tuple(known_pins.items()),
        allow_differences=arguments.allow_differences,
        baseline=_baseline(arguments),
        lab=lab,
    )


def _lab(arguments: argparse.Namespace) -> LabSpec | None:
    """--lab and --machine."""
    file, machine = getattr(arguments, "lab", None), getattr(arguments, "machine", None)
    if file is None and machine is None:
        return None
    if file is None or machine is None:
        raise UserError("--lab and --machine: needed together", hint="see configs/labs/")
    from harness.stages import lab  # noqa: PLC0415

    return lab.load(file, machine)


def _topology(arguments: argparse.Namespace, plan: Plan, lab: LabSpec | None) -> Topology:
    """A lab machine decides by its role: a host machine makes a pair, a guest stands alone."""
    asked = Topology(arguments.topology) if arguments.topology else None
    if lab is not None:
        wanted = Topology.PAIR if lab.role is Role.HOST else Topology.SOLO
        if asked not in (None, wanted):
            raise UserError(
                f"--topology {asked}: {lab.name} has the role {lab.role}, which makes a {wanted}"
            )
        if plan.platform is not None and all(None not in matrix(plan, s) for s in plan.selections):
            raise UserError(
                f"--lab: plan {plan.name}: all tests need the [platform], which only a VM can have"
            )
        return wanted
    return asked or plan.topology


def _baseline(arguments: argparse.Namespace) -> str:
    """--baseline, looked up now: a wrong name must not be told after half an hour."""
    name: str = getattr(arguments, "baseline", "")
    if name:
        from harness.stages import history  # noqa: PLC0415

        name = history.locate(name, arguments.runs_dir)
    return name


def _tell(text: str) -> None:
    """Print it. A reader that went away costs the text, not the run's exit code."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())


def _execute(
    arguments: argparse.Namespace, command: Sequence[str], verb: Callable[..., None] | None
) -> int:
    options = run_options(arguments, command)
    # late: a mistake in the options must be told at once
    from harness.stages.run import MainJob  # noqa: PLC0415
    from harness.terminal import TerminalProgress  # noqa: PLC0415

    progress = TerminalProgress()
    try:
        job = MainJob(options, progress)
        result = job.execute(verb)
    finally:
        progress.close()
    from harness.report import terminal  # noqa: PLC0415
    from harness.stages.reports import FILES  # noqa: PLC0415

    run_dir = job.recorder.run_dir
    if verb is not None and not result.failures and all(s.expected for s in result.splats):
        _tell(f"done; records are in {run_dir}")
        return 0
    paths = {name: str(run_dir / file) for name, file in FILES.items()}
    _tell(terminal.render(result, paths))
    return result.exit_code


def run(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """The main job."""
    return _execute(arguments, command, None)


def mutants(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Every mutant of our series, of one role; 0 when all were killed."""
    options = run_options(arguments, command)
    from harness.stages.mutants import MutantJob, load  # noqa: PLC0415
    from harness.terminal import TerminalProgress  # noqa: PLC0415

    found = load(arguments.mutants, arguments.which)
    progress = TerminalProgress()
    try:
        job = MutantJob(options, found, progress, None, arguments.resume)
        code = job.execute()
    finally:
        progress.close()
    print(job.render())
    return code


def patchcheck(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Every patch of the series by itself; 0 when nothing is wrong with any."""
    options = run_options(arguments, command)
    if arguments.start and arguments.role is None:
        raise UserError("--from: needs ROLE", hint="e.g. patchcheck guest --from dma-private")
    from harness.adapters import system_packages  # noqa: PLC0415
    from harness.stages.patchcheck import PatchCheck  # noqa: PLC0415
    from harness.terminal import TerminalProgress  # noqa: PLC0415

    roles = options.roles if arguments.role is None else (Role(arguments.role),)
    progress = TerminalProgress()
    try:
        requirements = system_packages.load(layout.CONFIGS / "requirements.toml")
        system_packages.ensure(requirements, progress)
        job = PatchCheck(options, roles, progress, build=arguments.build, start=arguments.start)
        try:
            code = job.execute()
        finally:
            progress.close()
            if job.directory.is_dir():  # not after a mistake in --from or in a series
                print(job.render())
    finally:
        progress.close()
    return code


def build(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Build the kernels and stop."""

    def only_build(job: object) -> None:
        from harness.stages.run import MainJob  # noqa: PLC0415

        assert isinstance(job, MainJob)
        for role, done in job.build_only().items():
            print(f"{role}: {done.release} build id {done.build_id}\n  {done.image}")

    return _execute(arguments, command, only_build)


def boot(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Build, boot, and leave the machines up until Ctrl-C."""

    def only_boot(job: object) -> None:
        from harness.stages.run import MainJob  # noqa: PLC0415

        assert isinstance(job, MainJob)
        job.boot_and_wait()

    return _execute(arguments, command, only_boot)


def shell(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Replace this process by ssh to a machine of a run that is up."""
    del command
    latest = arguments.runs_dir / "latest"
    path = latest / f"ssh-{arguments.machine}.json"
    try:
        argv = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        up = sorted(file.stem.removeprefix("ssh-") for file in latest.glob("ssh-*.json"))
        raise UserError(
            f"{arguments.machine}: not up (no {path})",
            hint=f"up in {latest}: {', '.join(up)}"
            if up
            else "start machines with `tdisp-harness boot` or `run --keep`; "
            "--runs-dir stands before the machine's name",
        ) from exc
    extra = [word for word in arguments.command if word != "--"]
    if not extra and sys.stdin.isatty():
        # the login shell of our machines is a small one
        extra = ["-t", "command -v bash > /dev/null && exec bash -l; exec sh -l"]
    os.execvp(argv[0], [*argv, *extra])


def report(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Write a run's reports again, and show the verdict; or serve a folder of runs."""
    from harness.report import markdown, terminal  # noqa: PLC0415
    from harness.stages import reports, show  # noqa: PLC0415

    del command
    if arguments.serve:
        show.serve(
            arguments.runs_dir,
            show.DEFAULT_PORT if arguments.port is None else arguments.port,
            functools.partial(print, flush=True),
        )
        return 0
    if arguments.port is not None:
        raise UserError("--port: needs --serve", hint="tdisp-harness report --serve --port 8080")
    run_dir, result = reports.load_run(arguments.run, arguments.runs_dir)
    reports.write_views(run_dir, result)
    paths = {name: str(run_dir / file) for name, file in reports.FILES.items()}
    if arguments.kcidb:
        paths["KCIDB"] = str(reports.write_kcidb(run_dir, result, arguments.kcidb_origin))
    try:
        reports.add_step_summary(result, os.environ)
    except OSError as exc:
        print(f"warning: {reports.STEP_SUMMARY}: {exc}", file=sys.stderr)
    print(markdown.render(result) if arguments.markdown else terminal.render(result, paths))
    if arguments.open and not show.open_report(run_dir / reports.FILES["report"]):
        print(f"no browser found; the report is {run_dir / reports.FILES['report']}")
    return result.exit_code


def compare(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """What changed from run A to run B; 1 when B is worse."""
    from harness.stages import history  # noqa: PLC0415

    del command
    before = history.find(arguments.a, arguments.runs_dir)
    after = history.find(arguments.b, arguments.runs_dir)
    rows = comparison.compare(before, after)
    print("\n".join(comparison.render(rows)))
    if after.verdict is not before.verdict:
        print(f"verdict: {before.verdict} -> {after.verdict}")
    return 1 if comparison.worse(before, after, rows) else 0


def history(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """Earlier runs, or the results of some cases over them."""
    from harness.core import case_history  # noqa: PLC0415
    from harness.stages.history import open_history  # noqa: PLC0415

    del command
    if arguments.last < 1:
        raise UserError(f"--last {arguments.last}: expected 1 or more")
    if not arguments.runs_dir.is_dir():
        raise UserError(f"{arguments.runs_dir}: no such directory", hint="give --runs-dir")
    store = open_history(arguments.runs_dir, lambda text: print(text, file=sys.stderr))
    runs = store.recent(arguments.last, plan=arguments.plan)
    if not arguments.case:
        print("\n".join(case_history.render_runs(runs)))
        return 0
    lines = case_history.render_cases(runs, arguments.case)
    if not lines:
        raise UserError(
            f"{arguments.case}: matches no test of the last {len(runs)} runs",
            hint="e.g. tsm:dma_freeze, or 'guest:*' ; with a / also subtests: 'dma_freeze / *'",
        )
    print("\n".join(lines))
    return 0


def parse(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """A parser on a file, JSON out."""
    del command
    try:
        if arguments.file == "-":
            data = sys.stdin.buffer.read()
        else:
            data = Path(arguments.file).read_bytes()
    except OSError as exc:
        raise UserError(f"{arguments.file}: {exc.strerror}") from exc
    found: Mapping[str, Sequence[Mapping[str, object]]]
    if arguments.kind == "ktap":
        if arguments.vmlinux is not None:
            raise UserError("--vmlinux: for logs only", hint="tdisp-harness parse log FILE")
        found = ktap.to_json(ktap.parse(data))
    else:
        rules = load_rules((layout.CONFIGS / "splat_rules.toml").read_text())
        splats = splat.find_splats(data, rules)
        found = splat.to_json(splats)
        if arguments.vmlinux is not None:
            traces = _decoded([one.trace for one in splats], arguments.vmlinux)
            rows = zip(found["splats"], traces, strict=True)
            found = {"splats": [{**row, "trace": list(trace)} for row, trace in rows]}
    json.dump(found, sys.stdout, indent=1)
    print()
    return 0


def _decoded(traces: Sequence[Sequence[str]], vmlinux: Path) -> list[tuple[str, ...]]:
    from harness.adapters.symbols import Decoder  # noqa: PLC0415

    if not vmlinux.is_file():
        raise UserError(f"{vmlinux}: no such file", hint="it lies in the kernel's build directory")
    modules = vmlinux.with_name("modules.tar.gz")  # beside it in a build of ours
    return Decoder(vmlinux, None, modules if modules.is_file() else None).decode(traces)


def doctor(arguments: argparse.Namespace, command: Sequence[str]) -> int:
    """What this machine has and lacks."""
    from harness import doctor as examination  # noqa: PLC0415

    del command
    return examination.examine(install=arguments.install, quiet=arguments.quiet)
