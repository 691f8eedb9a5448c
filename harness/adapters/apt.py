# SPDX-License-Identifier: GPL-2.0-only
"""apt with a state of its own: packages of a Debian suite, the machine's configuration untouched.

The mirror is the one of the machine's own apt configuration, the suite is exchanged; elsewhere
TDISP_HARNESS_MIRROR names it. apt verifies the archive's signature, and the checksum of a download
is compared once more with the signed index. Works without root rights.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from harness.adapters.process import Completed, run
from harness.errors import InfraError, NetworkError, StorageError
from harness.model.progress import Progress

MIRROR_VARIABLE = "TDISP_HARNESS_MIRROR"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_ENV = {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
_MIRROR_HINT = f"set {MIRROR_VARIABLE} to the address of a Debian mirror"
_NETWORK_HINT = "check the network (and proxy settings), then run the same command again"
# Read after the machine's own files, so a proxy set there stays in force and hooks do not.
_CONFIG = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
Dir::Etc::sourcelist "{state}/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{state}";
Dir::State::Lists "{state}/lists";
Dir::State::status "{state}/status";
Dir::State::extended_states "{state}/extended_states";
Dir::Cache "{state}/cache";
Dir::Cache::archives "{state}/cache/archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Log "{state}/log";
APT::Sandbox::User "root";
APT::Default-Release "";
APT::Update::Error-Mode "any";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
"""


@dataclass(frozen=True, slots=True)
class IndexTarget:
    """One index that apt knows: fields of `apt-get indextargets`, by name."""

    fields: dict[str, str]

    def get(self, name: str) -> str:
        return self.fields.get(name, "")


def parse_stanzas(text: str) -> Iterator[dict[str, str]]:
    """Paragraphs of "Name: value" lines, as apt writes them; continuation lines are joined."""
    for filled, group in itertools.groupby(text.splitlines(), key=lambda line: bool(line.strip())):
        if not filled:
            continue
        fields: dict[str, str] = {}
        name = ""
        for line in group:
            if line[0] in " \t":
                fields[name] = fields.get(name, "") + "\n" + line.strip()
            else:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        yield fields


def mirror_of(indextargets: str) -> str:
    """The address of the machine's Debian mirror, "" when its sources name none.

    indextargets: output of `apt-get indextargets`. Wanted is a Packages index of component main of
    the main archive (not -security, -updates: those may live elsewhere).
    """
    ranked: list[tuple[int, str]] = []
    for fields in parse_stanzas(indextargets):
        target = IndexTarget(fields)
        if target.get("Created-By") != "Packages" or target.get("Origin") != "Debian":
            continue
        if target.get("Component") != "main" or "security" in target.get("Codename"):
            continue
        uri = target.get("Repo-URI")
        if uri:
            ranked.append(("-" in target.get("Codename"), uri.rstrip("/")))
    return min(ranked, key=lambda item: item[0])[1] if ranked else ""


def compare_versions(left: str, right: str) -> int:
    """Negative, 0 or positive, as deb-version(7) orders them."""
    left_epoch, left_rest = _epoch(left)
    right_epoch, right_rest = _epoch(right)
    if left_epoch != right_epoch:
        return left_epoch - right_epoch
    left_up, _, left_rev = left_rest.rpartition("-") if "-" in left_rest else (left_rest, "", "0")
    right_up, _, right_rev = (
        right_rest.rpartition("-") if "-" in right_rest else (right_rest, "", "0")
    )
    return _compare_part(left_up, right_up) or _compare_part(left_rev, right_rev)


def _epoch(version: str) -> tuple[int, str]:
    epoch, colon, rest = version.partition(":")
    return (int(epoch), rest) if colon and epoch.isdigit() else (0, version)


def _compare_part(left: str, right: str) -> int:
    pairs = itertools.zip_longest(
        re.findall(r"(\D*)(\d*)", left), re.findall(r"(\D*)(\d*)", right), fillvalue=("", "")
    )
    for (left_text, left_digits), (right_text, right_digits) in pairs:
        a = [*map(_order, left_text), 0]
        b = [*map(_order, right_text), 0]
        if a != b:
            return -1 if a < b else 1
        difference = int(left_digits or 0) - int(right_digits or 0)
        if difference:
            return difference
    return 0


def _order(char: str) -> int:
    # the end of the part counts 0: a tilde sorts before it, letters before other signs
    if char == "~":
        return -1
    return ord(char) if char.isalpha() else ord(char) + 256


class PrivateApt:
    """apt on some suites of a Debian mirror, all state below `state_dir`."""

    def __init__(self, state_dir: Path, suites: tuple[str, ...]) -> None:
        self.state_dir = state_dir.absolute()
        self.suites = suites

    def mirror(self) -> str:
        """The mirror's address. InfraError when neither setting nor machine names one."""
        named = os.environ.get(MIRROR_VARIABLE, "").rstrip("/")
        if named:
            return named
        done = run(("apt-get", "indextargets"), env=_ENV, check=False)
        found = mirror_of(done.out) if done.returncode == 0 else ""
        if not found:
            raise InfraError(
                "this machine's apt configuration names no Debian mirror",
                hint=_MIRROR_HINT,
                command="apt-get indextargets",
            )
        return found

    def sources_lines(self) -> tuple[str, ...]:
        """One-line sources.list entries, also for mmdebstrap."""
        if not KEYRING.is_file():
            raise InfraError(f"{KEYRING}: missing", hint="install debian-archive-keyring")
        mirror = self.mirror()
        return tuple(f"deb [signed-by={KEYRING}] {mirror} {suite} main" for suite in self.suites)

    def update(self, progress: Progress, max_age_h: float = 12.0, force: bool = False) -> None:
        """Fetch the package lists unless they are younger than `max_age_h`.

        A failure with usable older lists is said as a warning, without them it is a NetworkError.
        """
        with self._prepared():
            sources = self.state_dir / "sources.list"
            stamp = self.state_dir / "updated"
            known = sources.read_text(encoding="utf-8") if sources.is_file() else ""
            age_s = time.time() - stamp.stat().st_mtime if stamp.is_file() else float("inf")
            if not force and known and 0 <= age_s < max_age_h * 3600:
                return
            wanted = "".join(f"{line}\n" for line in self.sources_lines())
            if wanted != known:
                stamp.unlink(missing_ok=True)
                sources.write_text(wanted, encoding="utf-8")
            progress.say(f"updating package lists ({', '.join(self.suites)})")
            argv = self._argv("apt-get", "--quiet", "update")
            done = run(argv, env=_ENV, check=False)
            if done.returncode == 0:
                stamp.touch()
            elif self._has_lists():
                progress.say(f"warning: package lists not updated: {_first_error(done)}")
            else:
                raise self._network_error("package lists", done)

    def forget(self) -> None:
        """Drop the lists: apt compares the signed index only, and never repairs a harmed list."""
        with self._prepared():
            shutil.rmtree(self.state_dir / "lists")
            (self.state_dir / "updated").unlink(missing_ok=True)

    def newest(self, package: str) -> tuple[str, int, str]:
        """Version, size in bytes and SHA256 of the newest version in the lists."""
        with self._prepared():
            argv = self._argv("apt-cache", "show", package)
            done = run(argv, env=_ENV, check=False)
        found = [
            stanza
            for stanza in parse_stanzas(done.out)
            if stanza.get("Package") == package and stanza.get("SHA256")
        ]
        if not found:
            raise InfraError(
                f"package {package}: not in {', '.join(self.suites)}",
                hint=f"is the name right? {_MIRROR_HINT} that has it",
                command=shlex.join(argv),
            )
        newer = functools.cmp_to_key(compare_versions)
        best = max(found, key=lambda stanza: newer(stanza["Version"]))
        return best["Version"], int(best["Size"]), best["SHA256"]

    def download(self, package: str, dest: Path, version: str, progress: Progress) -> Path:
        """Download one version into the directory `dest`; the file appears there whole."""
        with self._prepared():
            argv = self._argv("apt-cache", "show", f"{package}={version}")
            shown = next(parse_stanzas(run(argv, env=_ENV, check=False).out), {})
            sha256, size = shown.get("SHA256", ""), int(shown.get("Size", "0"))
            progress.say(f"downloading {package} {version} ({size / 1e6:.0f} MB)")
            argv = self._argv("apt-get", "--quiet", "download", f"{package}={version}")
            scratch = Path(tempfile.mkdtemp(prefix=".apt-", dir=dest))
            try:
                done = run(argv, cwd=scratch, env=_ENV, check=False)
                debs = sorted(scratch.glob("*.deb"))
                if done.returncode != 0 or len(debs) != 1:
                    raise self._download_error(package, done, argv)
                with debs[0].open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
                if digest != sha256:
                    raise NetworkError(
                        f"{package} {version}: SHA256 is {digest}, the index says {sha256 or '?'}",
                        hint=_NETWORK_HINT,
                        command=shlex.join(argv),
                    )
                return debs[0].rename(dest / debs[0].name)
            finally:
                shutil.rmtree(scratch)

    def _prepared(self) -> FileLock:
        """The lock over the state, whose directories and configuration exist."""
        try:
            for part in ("lists/partial", "cache/archives/partial", "log"):
                (self.state_dir / part).mkdir(parents=True, exist_ok=True)
            (self.state_dir / "status").touch()
            config = _CONFIG.replace("{state}", str(self.state_dir))
            path = self.state_dir / "apt.conf"
            if not path.is_file() or path.read_text(encoding="utf-8") != config:
                path.write_text(config, encoding="utf-8")
        except OSError as exc:
            raise StorageError(f"{self.state_dir}: {exc}") from exc
        return FileLock(self.state_dir / ".lock")

    def _argv(self, tool: str, *args: str) -> tuple[str, ...]:
        return (tool, f"--config-file={self.state_dir}/apt.conf", *args)

    def _has_lists(self) -> bool:
        lists = self.state_dir / "lists"
        return all(any(lists.glob(f"*_dists_{suite}_*_Packages*")) for suite in self.suites)

    def _network_error(self, what: str, done: Completed) -> NetworkError:
        return NetworkError(
            f"{what}: {_first_error(done)}",
            hint=f"{_NETWORK_HINT}; or {_MIRROR_HINT}",
            command=shlex.join(done.argv),
        )

    def _download_error(
        self, package: str, done: Completed, argv: tuple[str, ...]
    ) -> NetworkError | StorageError:
        if "No space left" in done.err or "enough free space" in done.err:
            return StorageError(
                f"{package}: no space left on the disk", command=f"df -h; {shlex.join(argv)}"
            )
        return self._network_error(package, done)


def _first_error(done: Completed) -> str:
    """What apt complains about, in one line."""
    lines = [line for line in done.err.splitlines() if line.startswith(("E:", "W:"))]
    return lines[0] if lines else f"{done.argv[0]} ended with status {done.returncode}"
