# SPDX-License-Identifier: GPL-2.0-only
"""The command line: options to model objects, errors to exit codes. Nothing else exits."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from harness import __version__, cache, layout
from harness.emulator import arguments as platform_arguments
from harness.errors import HarnessError, UserError


def _codes(good: str, bad: str, nothing: str = "infrastructure error, or interrupted") -> str:
    """What a verb's exit codes mean, for its help."""
    return f"""exit codes:
  0   {good}
  1   {bad}
  2   {nothing}
  64  usage or configuration error"""


EXIT_CODES = f"""{
    _codes(
        "all tests that ran passed",
        "a test, a build or a patch failed, or a kernel crashed or splatted",
        "infrastructure error, interrupted, or nothing could be tested",
    )
}

files: $TDISP_HARNESS_CACHE (default ~/.cache/tdisp-harness) holds sources, builds and root file
systems; a run writes to runs/<time>-<plan>/ only."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{self.prog}: {message}", hint=f"{self.prog} --help")


_Verbs: TypeAlias = "argparse._SubParsersAction[_Parser]"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tdisp-harness",
        description="Builds patched host and guest kernels, runs kselftests on them, "
        "and gives a verdict.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="COMMAND", parser_class=_Parser
    )
    _add_run(verbs)
    _add_mutants(verbs)
    _add_patchcheck(verbs)
    _add_build(verbs)
    _add_boot(verbs)
    _add_reports(verbs)
    _add_parse(verbs)
    _add_platform(verbs)
    cache.add_arguments(verbs.add_parser("cache", help="show its size, or remove what is not used"))
    doctor = verbs.add_parser("doctor", help="what this machine has and lacks")
    doctor.add_argument("--install", action="store_true", help="install what is missing")
    doctor.add_argument("--quiet", action="store_true", help="speak only of what is missing")
    return parser


def _add_kernel_options(parser: argparse.ArgumentParser, plan: str = "default") -> None:
    """The plan and what goes into its kernels; `plan`: the one that is taken when none is named."""
    parser.add_argument("plan", nargs="?", default=plan, help="a plan's name or file")
    _add_source_options(parser)
    parser.add_argument(
        "--topology", choices=["solo", "pair"], help="solo: guest VMs only (default: the plan's)"
    )
    parser.add_argument(
        "--pins",
        type=Path,
        metavar="FILE",
        help="refuse to go on where source, series, configuration, root file system, QEMU or plan "
        "are not those of FILE (written by reproduce.sh)",
    )
    parser.add_argument(
        "--allow-differences", action="store_true", help="with --pins: say them and go on"
    )


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    """What the kernels are made of, and where that is written down."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--tree", type=Path, metavar="DIR", help="a kernel git tree (only read)")
    source.add_argument("--tarball", type=Path, metavar="FILE", help="a kernel source tarball")
    parser.add_argument("--ref", default=None, help="with --tree: the commit (default: HEAD)")
    parser.add_argument(
        "--series",
        action="append",
        default=[],
        metavar="ROLE=PATH",
        help="append a series: a directory, an mbox or one patch; may be repeated",
    )
    parser.add_argument(
        "--no-builtin-series",
        action="append",
        default=[],
        choices=["host", "guest"],
        metavar="ROLE",
        help="leave our own series out; may be repeated",
    )
    parser.add_argument(
        "--runs-dir", type=Path, default=Path("runs"), metavar="DIR", help="default: runs"
    )
    parser.add_argument(
        "-j", "--jobs", type=int, default=os.cpu_count() or 1, help="parallel compilers"
    )


def _add_run(verbs: _Verbs) -> None:
    run = verbs.add_parser(
        "run",
        help="the main job: source to verdict",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument(
        "-k", dest="expression", default="", metavar="EXPR", help="e.g. 'guest and dma'"
    )
    run.add_argument("--keep", action="store_true", help="leave the machines up until Ctrl-C")
    run.add_argument(
        "--lab", type=Path, metavar="FILE", help="an inventory: use its --machine instead of a VM"
    )
    run.add_argument("--machine", metavar="NAME", help="with --lab: the machine's name there")
    run.add_argument(
        "--repeat",
        type=int,
        metavar="N",
        help="repeat a failed test up to N times, each time on a fresh machine; a pass among them "
        "makes it FLAKY (default: the plan's, else 1)",
    )
    run.add_argument(
        "--infra-retries",
        type=int,
        metavar="N",
        help="try a test again up to N times after an infrastructure failure (default: the plan's, "
        "else 1)",
    )
    run.add_argument(
        "--baseline",
        default="",
        metavar="RUN",
        help="compare with this run (default: the last run of the same plan)",
    )
    _add_kernel_options(run)


def _add_mutants(verbs: _Verbs) -> None:
    mutants = verbs.add_parser(
        "mutants",
        help="break our series one check at a time: do the tests notice?",
        epilog=_codes(
            "all mutants were killed",
            "a mutant survived or is broken, or a test fails without one",
            "infrastructure error, interrupted, or not all could be found out",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    mutants.add_argument(
        "-k", dest="which", default="", metavar="EXPR", help="some of them, e.g. 'freeze or races'"
    )
    mutants.add_argument(
        "--mutants",
        type=Path,
        default=layout.MUTANTS,
        metavar="DIR",
        help="the patches (default: tests/mutants)",
    )
    mutants.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="go on with runs/<time>-mutants: what was killed there, by the same code, stays so",
    )
    _add_kernel_options(mutants, plan="trust")


def _add_patchcheck(verbs: _Verbs) -> None:
    check = verbs.add_parser(
        "patchcheck",
        help="is every single patch of the series fit to be sent?",
        description="Each patch: applies with git am, checkpatch --strict has nothing to say "
        "(but that nobody signed), and with --build the directories of the series compile with "
        "W=1, without a new warning.",
        epilog=_codes(
            "nothing is wrong",
            "something is wrong with a patch",
            "infrastructure error, interrupted, or not all were looked at",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument(
        "role",
        nargs="?",
        choices=["host", "guest"],
        metavar="ROLE",
        help="one role (default: both)",
    )
    check.add_argument("--build", action="store_true", help="compile after each patch")
    check.add_argument(
        "--from",
        dest="start",
        default="",
        metavar="PATCH",
        help="begin there: SERIES, SERIES/NAME or the beginning of either; needs ROLE",
    )
    _add_source_options(check)
    check.set_defaults(plan="default", topology="pair", pins=None, allow_differences=False)


def _add_build(verbs: _Verbs) -> None:
    build = verbs.add_parser(
        "build",
        help="build the kernels and stop",
        epilog=_codes("the kernels are built", "a build or a patch failed"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_kernel_options(build)


def _add_boot(verbs: _Verbs) -> None:
    boot = verbs.add_parser(
        "boot",
        help="build, boot the machines and leave them up until Ctrl-C",
        epilog=_codes("the machines were up", "a build failed, or a kernel crashed or splatted"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_kernel_options(boot)
    shell = verbs.add_parser("shell", help="open a shell on a machine of a running boot or --keep")
    shell.add_argument("machine", help="host, guest or guest-solo")
    shell.add_argument("command", nargs=argparse.REMAINDER, help="a command instead of a shell")
    shell.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR")


def _add_reports(verbs: _Verbs) -> None:
    report = verbs.add_parser(
        "report",
        help="write a run's reports again and show the verdict; or serve a folder of runs",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument("run", nargs="?", default="latest", help="a run's name or directory")
    report.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR")
    report.add_argument("--markdown", action="store_true", help="print Markdown (CI summaries)")
    report.add_argument(
        "--kcidb", action="store_true", help="write kcidb.json too, for KernelCI's database"
    )
    report.add_argument(
        "--kcidb-origin",
        default="tdisp_harness",
        metavar="NAME",
        help="the name that KernelCI gave to your system (default: tdisp_harness)",
    )
    shown = report.add_mutually_exclusive_group()
    shown.add_argument("--open", action="store_true", help="open report.html in a browser")
    shown.add_argument(
        "--serve",
        action="store_true",
        help="show all runs of --runs-dir, with trends, on 127.0.0.1 until Ctrl-C",
    )
    report.add_argument("--port", type=int, metavar="N", help="of --serve (default: 8737; 0: any)")
    compare = verbs.add_parser(
        "compare",
        help="what changed from run A to run B",
        epilog=_codes("B is no worse", "B is worse"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument("a", help="a run's name or directory")
    compare.add_argument("b", help="a run's name or directory")
    compare.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR")
    history = verbs.add_parser(
        "history", help="earlier runs, or the results of one test over them, oldest first"
    )
    history.add_argument(
        "case",
        nargs="?",
        default="",
        metavar="CASE",
        help="a part of role:collection:test, or a pattern with * and ?; with a / also subtests",
    )
    history.add_argument("-n", "--last", type=int, default=20, metavar="N", help="default: 20")
    history.add_argument("--plan", default="", metavar="NAME", help="runs of this plan only")
    history.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="DIR")


def _add_platform(verbs: _Verbs) -> None:
    platform = verbs.add_parser(
        "platform", help="serve emulated TEE-IO devices to a QEMU command line (docs/platform.md)"
    )
    platform_arguments.add_arguments(platform)


def _add_parse(verbs: _Verbs) -> None:
    parse = verbs.add_parser("parse", help="a parser on a file, JSON out")
    parse.add_argument("kind", choices=["ktap", "log"])
    parse.add_argument("file", help="- for standard input")
    parse.add_argument(
        "--vmlinux",
        type=Path,
        metavar="FILE",
        help="log: add call traces, with the source lines of this kernel's debugging information",
    )


def _verbs() -> dict[str, Callable[[argparse.Namespace, Sequence[str]], int]]:
    """Verb to function. Imports happen per verb: `parse` must not pay for paramiko."""
    from harness import commands  # noqa: PLC0415

    return {
        "run": commands.run,
        "mutants": commands.mutants,
        "patchcheck": commands.patchcheck,
        "build": commands.build,
        "boot": commands.boot,
        "shell": commands.shell,
        "report": commands.report,
        "compare": commands.compare,
        "history": commands.history,
        "parse": commands.parse,
        "doctor": commands.doctor,
        "platform": _platform,
        "cache": lambda options, _: cache.run(options),
    }


def _platform(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    from harness.emulator import serve  # noqa: PLC0415

    del arguments
    return serve.run(options)


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end a run as Ctrl-C does."""

    def interrupt(signum: int, frame: object) -> None:
        del signum, frame
        raise KeyboardInterrupt

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; UserError when it cannot be read."""
    return _parser().parse_args(list(arguments))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = parse(arguments)
        with _termination_as_interrupt():
            code = _verbs()[options.verb](options, arguments)
        sys.stdout.flush()  # here, where it can be told that nobody reads it
        return code
    except HarnessError as exc:
        print(f"error: {exc.render()}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output went away
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception:
        # Python would end with 1, which says that a test failed
        traceback.print_exc()
        print("error: this is a defect of the harness, not of a kernel", file=sys.stderr)
        return 2
