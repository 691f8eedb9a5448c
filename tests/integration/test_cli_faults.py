# SPDX-License-Identifier: GPL-2.0-only
"""Faults seen through the command line, on a fake kernel with real git, make and gcc."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from harness import layout
from harness.adapters import system_packages
from harness.report import json_report
from tests.integration.fake_kernel import Site, frozen_harness
from tests.integration.kernel_trees import commit, edit, format_patch, git

_MISSING = [
    one.name
    for one in system_packages.load(layout.CONFIGS / "requirements.toml")
    if not one.found()
]
pytestmark = pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}")


def stages_done(site: Site) -> list[str]:
    """The stages that the only run has behind it."""
    found = [path for path in site.runs.glob("*/result.json") if not path.parent.is_symlink()]
    return [one["name"] for path in found for one in json.loads(path.read_text())["stages"]]


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return frozen_harness(tmp_path_factory.mktemp("harness"))


@pytest.fixture
def site(tmp_path: Path, harness: Path) -> Site:
    return Site(tmp_path, harness)


def result_of(site: Site) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((site.runs / "latest" / "result.json").read_text())
    json_report.validate(data)
    return data


def only_failure(site: Site) -> dict[str, Any]:
    (failure,) = result_of(site)["failures"]
    assert isinstance(failure, dict)
    return failure


def on_small_disk(directory: Path, size: str) -> tuple[str, ...]:
    """A command prefix under which `directory` is a small file system, until the command ends.

    Afterwards the files are copied to `directory`-seen: the file system itself is gone then.
    """
    usable = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        check=False,
    )
    if usable.returncode != 0:
        pytest.skip("mounting needs root")
    script = (
        f'd=$0; mkdir -p "$d"; mount -t tmpfs -o size={size} none "$d" || exit 99\n'
        '[ ! -d "$d-before" ] || cp -a "$d-before/." "$d/" || exit 98\n'
        '"$@"; status=$?; cp -a "$d" "$d-seen"; exit $status'
    )
    return "unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(directory)


# disks and networks


def test_no_room_for_the_source(site: Site) -> None:
    done = site.run(inside=on_small_disk(site.cache, "200k"))
    assert done.returncode == 2, done.stderr
    failure = only_failure(site)
    assert failure["kind"] == "infra"
    assert f"{site.cache}/source has 0.0 GB free" in failure["message"]
    assert failure["hint"]
    assert not list((site.root / "cache-seen" / "source").glob("[!.]*"))


def test_a_disk_that_fills_up_under_the_build(site: Site) -> None:
    large = site.root / "large.patch"
    large.write_bytes(mail_of_change(site, "char room[1 << 20] = {1};\n"))
    assert site.run().returncode == 0
    before = site.cache.rename(site.root / "cache-before")
    used = subprocess.run(["du", "-sk", before], capture_output=True, text=True, check=True)
    room_kib = int(used.stdout.split()[0]) + 1500  # for the object, not for the kernel
    done = site.run("--series", f"guest={large}", inside=on_small_disk(site.cache, f"{room_kib}k"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "no space left" in (done.stdout + done.stderr).lower()
    assert len(list((site.root / "cache-seen" / "store").glob("kernel/*"))) == 1
    assert not list((site.root / "cache-seen" / "store" / ".drafts").iterdir())
    (site.root / "cache-seen").rename(site.cache)
    done = site.run("--series", f"guest={large}")
    assert done.returncode == 0, "with room again, the same command works"


@pytest.mark.parametrize("size", ["4k", "12k"])
def test_a_full_disk_under_the_run_directory(site: Site, size: str) -> None:
    assert site.run().returncode == 0
    done = site.run(inside=on_small_disk(site.runs, size))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "No space left" in done.stderr
    assert "result.json" in done.stderr
    # what could be written is whole: never half a file
    for written in (site.root / "runs-seen").glob("*/result.json"):
        json_report.validate(json.loads(written.read_text()))


def test_without_a_network_a_first_run_says_what_it_wanted(site: Site) -> None:
    prefix = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--net")
    if subprocess.run([*prefix, "true"], check=False).returncode != 0:
        pytest.skip("no network namespaces here")
    argv = [one for one in site.argv() if one != "--no-builtin-series"]
    argv.remove("guest")
    done = site.call([*prefix, *argv])
    assert done.returncode == 2, done.stdout + done.stderr
    failure = only_failure(site)
    assert failure["kind"] == "infra"
    assert "Failed to fetch" in failure["message"]
    assert "resolving" in failure["message"], "the cause, as apt tells it"
    assert failure["hint"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mmdebstrap needs root in a network namespace")
def test_without_a_network_it_is_told_that_the_root_file_system_needs_it(site: Site) -> None:
    argv = ["unshare", "--net", *site.argv("--tree", str(site.tree), verb="run")]
    done = site.call(argv, TDISP_HARNESS_MIRROR="http://mirror.example")
    assert done.returncode == 2, done.stdout + done.stderr
    failure = only_failure(site)
    assert failure["kind"] == "infra"
    assert "Failed to fetch" in failure["message"]
    assert "resolving" in failure["message"], "the cause, as apt tells it"
    assert "resolving" in done.stdout
    assert "network" in failure["hint"]
    assert failure["log"] == "rootfs-guest.log"
    assert [kernel["role"] for kernel in result_of(site)["kernels"]] == ["guest"]


# trees and series


def test_a_missing_tree_and_a_missing_ref_are_usage_errors(site: Site) -> None:
    done = site.run("--ref", "no-such-branch")
    assert done.returncode == 64
    assert "no-such-branch" in done.stderr
    shutil.rmtree(site.tree)
    done = site.run()
    assert done.returncode == 64
    assert str(site.tree) in done.stderr


def test_a_tree_too_old_for_the_built_in_series(site: Site) -> None:
    edit(site.tree, "Makefile", "PATCHLEVEL = 3", "PATCHLEVEL = 1")
    commit(site.tree, "older")
    argv = site.argv("--tree", str(site.tree))
    argv.remove("--no-builtin-series")
    argv.remove("guest")
    done = site.call(argv)
    assert done.returncode == 1, done.stderr
    failure = only_failure(site)
    assert failure["kind"] == "patch"
    assert re.search(r"wants Linux 7\.3 ≤ v < 7\.4, the tree is 7\.1", failure["message"])
    assert stages_done(site)[-1] == "patch guest", "no configuration, no build"


def mail_of_change(site: Site, new: str) -> bytes:
    """A mail by git format-patch that appends `new` to lib/sort.c; the tree stays as it is."""
    text = (site.tree / "lib/sort.c").read_text()
    git(site.tree, "checkout", "--quiet", "-b", "change")
    edit(site.tree, "lib/sort.c", text, text + new)
    commit(site.tree, "lib: change the sort")
    (patch,) = format_patch(site.tree, site.root / "out", "main")
    git(site.tree, "checkout", "--quiet", "main")
    return patch.read_bytes()


def as_base64(mail: bytes) -> bytes:
    head, _, body = mail.partition(b"\n\n")
    encoded = base64.encodebytes(body)
    return (
        head
        + b"\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8"
        + b"\nContent-Transfer-Encoding: base64\n\n"
        + encoded
        + b"\n"
    )


@pytest.mark.parametrize("kind", ["plain", "crlf", "base64", "base64 and crlf"])
def test_a_mail_is_applied_however_it_was_encoded(site: Site, kind: str) -> None:
    mail = mail_of_change(site, "/* from a mail */\n")
    if "base64" in kind:
        mail = as_base64(mail)
    if "crlf" in kind:
        mail = mail.replace(b"\n", b"\r\n")
    mbox = site.root / "series.mbox"
    mbox.write_bytes(mail)
    done = site.run("--series", f"guest={mbox}")
    assert done.returncode == 0, done.stdout + done.stderr
    built = site.cache / "work/guest/linux/lib/sort.c"
    assert built.read_bytes().endswith(b"/* from a mail */\n")


def test_a_series_that_does_not_apply_is_reported_and_nothing_is_built(site: Site) -> None:
    mail = mail_of_change(site, "/* from a mail */\n")
    (site.root / "bad.patch").write_bytes(mail.replace(b"\n ", b"\n other"))
    done = site.run("--series", f"guest={site.root / 'bad.patch'}")
    assert done.returncode == 1, done.stderr
    failure = only_failure(site)
    assert failure["kind"] == "patch"
    assert "bad.patch" in done.stdout
    assert "lib/sort.c" in failure["message"]
    assert failure["command"]
    assert site.kernels() == []


# configuration and build


def test_a_misspelt_symbol_stops_the_run_before_the_build(site: Site) -> None:
    edit(site.tree, "Kconfig", "config PCI_TSM\n", "config PCI_TSN\n")
    commit(site.tree, "rename")
    done = site.run()
    assert done.returncode == 1, done.stderr
    failure = only_failure(site)
    assert failure["kind"] == "config"
    assert "CONFIG_PCI_TSM" in failure["message"]
    assert "did you mean CONFIG_PCI_TSN?" in failure["message"]
    assert "configs/kernel/base.config" in failure["message"]
    assert site.kernels() == []


def test_a_kernel_that_does_not_compile(site: Site) -> None:
    mail = mail_of_change(site, "int broken(void) { return undeclared; }\n")
    (site.root / "broken.patch").write_bytes(mail)
    done = site.run("--series", f"guest={site.root / 'broken.patch'}")
    assert done.returncode == 1, done.stderr
    failure = only_failure(site)
    lines = (site.cache / "work/guest/linux/lib/sort.c").read_text().splitlines()
    assert failure["kind"] == "build"
    assert f"lib/sort.c:{len(lines)}" in failure["message"]
    assert "undeclared" in failure["message"]
    assert failure["log"]
    assert failure["command"].count("make")
    assert site.run().returncode == 0, "without the patch it builds, in the same tree"


# the cache


@pytest.mark.parametrize("harm", ["truncated", "altered", "lost"])
def test_a_harmed_kernel_in_the_cache_is_built_again(site: Site, harm: str) -> None:
    assert site.run().returncode == 0
    (entry,) = site.kernels()
    image = entry / "bzImage"
    good = image.read_bytes()
    if harm == "truncated":
        image.write_bytes(good[: len(good) // 2])
    elif harm == "altered":
        image.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    else:
        image.unlink()
    done = site.run()
    assert done.returncode == 0, done.stderr
    assert "removed from the store: bzImage" in done.stderr
    assert image.read_bytes() == good


def test_a_harmed_source_tree_is_exported_again(site: Site) -> None:
    assert site.run().returncode == 0
    (pristine,) = (site.cache / "source").glob("*/linux")
    makefile = pristine / "Makefile"
    makefile.unlink()
    makefile.write_text("all:\n\t@false\n")
    shutil.rmtree(site.cache / "work")
    shutil.rmtree(site.cache / "store")
    done = site.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VERSION = 7" in makefile.read_text()


def test_harm_that_no_sample_shows_is_found_before_something_is_made_of_it(site: Site) -> None:
    assert site.run().returncode == 0
    (pristine,) = (site.cache / "source").glob("*/linux")
    stray = pristine / "lib" / "stray.c"
    stray.write_text("int stray;\n")
    done = site.run()
    assert done.returncode == 0, done.stderr
    assert stray.exists(), "nothing was made of the tree: its kernel is in the store"
    (site.root / "one.patch").write_bytes(mail_of_change(site, "/* from a mail */\n"))
    done = site.run("--series", f"guest={site.root / 'one.patch'}")
    assert done.returncode == 0, done.stderr
    assert "altered: " in done.stderr
    assert "beginning again" in done.stderr
    (pristine,) = (site.cache / "source").glob("*/linux")
    assert not (pristine / "lib" / "stray.c").exists()
    assert not (site.cache / "work/guest/linux/lib/stray.c").exists()


# several runs, and signals


def test_two_runs_at_the_same_time_share_one_build(site: Site) -> None:
    argv = site.argv("--tree", str(site.tree))
    environment = site.environment()
    both = [
        subprocess.Popen(
            argv,
            cwd=site.harness,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=100)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(site.kernels()) == 1
    assert len([path for path in site.runs.iterdir() if not path.is_symlink()]) == 2


def slow_program(site: Site, name: str, argument: str) -> str:
    """A PATH on which program `name` waits a minute when `argument` is among its arguments."""
    directory = site.root / "slow"
    directory.mkdir()
    real = shutil.which(name)
    assert real is not None
    script = directory / name
    script.write_text(
        '#!/bin/sh\nfor word; do\n\tif [ "$word" = "' + argument + '" ]; then\n'
        f"\t\ttouch '{site.root}/reached'\n\t\tsleep 60\n\tfi\ndone\nexec '{real}' \"$@\"\n"
    )
    script.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


# the verb, its stage, the program that is in the middle of its work, a word it is called with, and
# the number of stages that must be over first: disks are made while the kernel is built
STAGES = [
    ("build", "source", "git", "archive", 0),
    ("build", "patch guest", "git", "am", 0),
    ("build", "config guest", "make", "olddefconfig", 0),
    ("build", "build guest", "make", "bzImage", 0),
    ("run", "machines' disks and QEMU", "mmdebstrap", "--variant=minbase", 5),
]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("verb", "stage", "program", "word", "over"), STAGES)
def test_a_signal_in_every_stage_before_the_machines(  # noqa: PLR0917
    site: Site, signum: signal.Signals, verb: str, stage: str, program: str, word: str, over: int
) -> None:
    (site.root / "one.patch").write_bytes(mail_of_change(site, "/* from a mail */\n"))
    series = ("--series", f"guest={site.root / 'one.patch'}")
    argv = site.argv("--tree", str(site.tree), *series, verb=verb)
    process = subprocess.Popen(
        argv,
        cwd=site.harness,
        env=site.environment(
            PATH=slow_program(site, program, word), TDISP_HARNESS_MIRROR="http://mirror.example"
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not ((site.root / "reached").exists() and len(stages_done(site)) >= over):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.0 if over else 0.0)  # from the end of the stage before to this one
    process.send_signal(signum)
    try:
        said = process.communicate(timeout=30)[0]
    finally:
        process.kill()
    assert process.returncode == 2, said
    result = result_of(site)
    assert result["failures"][0]["kind"] == "interrupted"
    assert result["stages"][-1]["name"] == stage
    assert result["stages"][-1]["state"] == "interrupted"
    assert not list((site.cache / "live").glob("*.json"))
    done = site.run(*series)
    assert done.returncode == 0, "nothing of the interrupted run is in the way"


@pytest.mark.skipif(os.geteuid() != 0, reason="the installation would go through sudo")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_system_packages_are_installed(
    site: Site, tmp_path: Path, signum: signal.Signals
) -> None:
    plain = site.harness
    site.harness = frozen_harness(tmp_path / "wants-more")
    with (site.harness / "configs/requirements.toml").open("a") as stream:
        stream.write('[[requirement]]\nprogram = "no-such-program"\n')
        stream.write('package = "no-such-package"\nwhy = "x"\n')
    process = subprocess.Popen(
        site.argv("--tree", str(site.tree), verb="run"),
        cwd=site.harness,
        env=site.environment(PATH=slow_program(site, "apt-get", "-y")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (site.root / "reached").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signum)
    try:
        said = process.communicate(timeout=30)[0]
    finally:
        process.kill()
    assert process.returncode == 2, said
    (stage,) = result_of(site)["stages"]
    assert (stage["name"], stage["state"]) == ("system", "interrupted")
    assert only_failure(site)["kind"] == "interrupted"
    assert not list((site.cache / "live").glob("*.json"))
    site.harness = plain
    assert site.run().returncode == 0
