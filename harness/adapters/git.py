# SPDX-License-Identifier: GPL-2.0-only
"""git: reading a user's tree without touching it, and small scratch repositories for `git am`."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Mapping
from pathlib import Path

from harness.adapters.process import Completed, run
from harness.errors import UserError

# a harness started from a git hook inherits these; they would name another repository
_UNSET = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")
# without a protocol nothing is fetched: in a partial clone git would write it into the user's tree
_ALONE = "GIT_ALLOW_PROTOCOL=none"
_PREFIX = ("env", *(word for name in _UNSET for word in ("-u", name)), _ALONE, "git")
_ENV = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
# The scratch repository must behave the same whatever the user's configuration says.
_SCRATCH_ENV = {
    **_ENV,
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "XDG_CONFIG_HOME": "/dev/null",
}
_SCRATCH_CONFIG = {
    "user.name": "TDISP harness",
    "user.email": "tdisp-harness@localhost",
    "commit.gpgsign": "false",
    "core.hooksPath": "/dev/null",
    "core.autocrlf": "false",
    "core.safecrlf": "false",
    "core.quotePath": "false",
    "am.keepcr": "true",
    "am.threeWay": "false",
    "apply.whitespace": "nowarn",
    "gc.auto": "0",
}


class GitTree:
    """A user's repository or worktree, bare or not; only ever read.

    UserError when it is none. A tree owned by another user is read too: the user named it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise UserError(f"--tree {path}: no such directory")
        found = self._git("rev-parse", "--is-bare-repository", "--absolute-git-dir", check=False)
        if found.returncode != 0:
            raise UserError(
                f"--tree {path}: not a git repository\n  {found.err.strip()}",
                hint="commit the tree to git, or pack it and give the archive:",
                command=f"tar -caf linux.tar.zst -C {shlex.quote(str(path))} .",
            )
        bare, git_dir = found.out.splitlines()[:2]
        self.bare = bare == "true" or str(path.resolve()) == git_dir
        if not self.bare:
            top = self._git("rev-parse", "--show-toplevel").out.rstrip("\n")
            self.path = Path(top)

    def commit(self, ref: str) -> str:
        """The commit that a ref names; UserError with near refs when there is none."""
        found = self._git(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}", check=False
        )
        if found.returncode == 0:
            return found.out.strip()
        near = self.near_refs(ref)
        hint = f"near: {', '.join(near)}" if near else "fetch it into the tree first"
        raise UserError(f"--tree {self.path}: --ref {ref}: no such commit", hint=hint)

    def near_refs(self, ref: str) -> tuple[str, ...]:
        listed = self._git("for-each-ref", "--format=%(refname:short)", check=False).out.split()
        return tuple(difflib.get_close_matches(ref, listed, n=4, cutoff=0.5))

    def has_uncommitted(self) -> bool:
        """Whether tracked files differ from HEAD; the index is not refreshed on disk."""
        if self.bare:
            return False
        status = self._git("status", "--porcelain", "--untracked-files=no", check=False)
        return bool(status.out.strip())

    def file(self, commit: str, path: str) -> str | None:
        """A file's text at a commit, None when it is not there."""
        shown = self._git("cat-file", "blob", f"{commit}:{path}", check=False)
        self.refuse_partial(commit, shown.err)
        return shown.out if shown.returncode == 0 else None

    def refuse_partial(self, commit: str, said: str) -> None:
        """UserError when git said that a partial clone lacks what belongs to the commit."""
        if "from promisor remote" in said:
            raise UserError(
                f"--tree {self.path}: {commit[:12]} is not all there: a partial clone",
                hint="the tree is only read; let git fetch the rest:",
                command=f"git -C {shlex.quote(str(self.path))} archive {commit} > /dev/null",
            )

    def archive_argv(self, commit: str) -> tuple[str, ...]:
        """Writes a tar of the commit to its standard output."""
        return (*self._argv(), "archive", "--format=tar", commit)

    def _argv(self) -> tuple[str, ...]:
        own = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
        return (*_PREFIX, "-C", str(self.path), *own)

    def _git(self, *args: str, check: bool = True) -> Completed:
        return run((*self._argv(), *args), env=_ENV, check=check, what=f"git {args[0]}")


class ScratchRepository:
    """A small repository of our own, in which a series is applied with the real `git am`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, message: str) -> None:
        """Make a repository of the files that stand in the directory and commit them."""
        self.git("init", "--quiet", "--template=", "--initial-branch=series")
        lines = [
            f"[{k.rsplit('.', 1)[0]}]\n\t{k.rsplit('.', 1)[1]} = {v}\n"
            for k, v in _SCRATCH_CONFIG.items()
        ]
        with (self.path / ".git/config").open("a", encoding="utf-8") as config:
            config.writelines(lines)
        # files are bytes to us: a .gitattributes among them must not change line ends
        info = self.path / ".git/info"
        info.mkdir(exist_ok=True)
        (info / "attributes").write_text("* -text -filter -ident !eol !working-tree-encoding\n")
        self.git("add", "--force", "--all", ".")
        dates = {"GIT_AUTHOR_DATE": "@0 +0000", "GIT_COMMITTER_DATE": "@0 +0000"}
        self.git("commit", "--quiet", "--allow-empty", "--message", message, env=dates)

    def am(self, patch: Path) -> Completed:
        """Apply one mail; on failure the repository is as before, the output says why."""
        argv = ("am", "--keep-cr", "--no-3way", "--patch-format=mbox", str(patch))
        done = self.git(*argv, check=False)
        if done.returncode != 0:
            self.git("am", "--abort", check=False)
            self.restore()
        return done

    def apply_reject(self, patch: Path) -> str:
        """What `git apply --reject` says about each hunk; the repository is as before."""
        said = self.git("apply", "--reject", "--verbose", str(patch), check=False).err
        self.restore()
        return said

    def restore(self) -> None:
        self.git("reset", "--quiet", "--hard")
        self.git("clean", "--quiet", "-ffdx")

    def files(self) -> tuple[str, ...]:
        """Paths at HEAD."""
        listed = self.git("ls-tree", "-r", "-z", "--name-only", "HEAD").stdout
        return tuple(n.decode("utf-8", "surrogateescape") for n in listed.split(b"\0") if n)

    def git(
        self, *args: str, check: bool = True, env: Mapping[str, str] | None = None
    ) -> Completed:
        return run(
            (*_PREFIX, "-C", str(self.path), *args),
            env={**_SCRATCH_ENV, **(env or {})},
            check=check,
            what=f"git {args[0]}",
        )
