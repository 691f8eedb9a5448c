# SPDX-License-Identifier: GPL-2.0-only
"""core/diff, core/mailbox, core/series: patches out of mails, series.toml, versions."""

from __future__ import annotations

import base64
import quopri
from pathlib import Path

import pytest

from harness.core.diff import Hunk, explain, failures, parse_diff, touched_files
from harness.core.mailbox import decode_mail, split_mbox, to_bytes
from harness.core.series import (
    cover_in,
    in_range,
    kernel_version,
    parse_series_toml,
    parse_version,
    patch_from_file,
    patches_from_mbox,
)
from harness.errors import UserError

DATA = Path(__file__).parent / "data" / "series"
DIFF = b"""diff --git a/kernel/a.c b/kernel/a.c
--- a/kernel/a.c
+++ b/kernel/a.c
@@ -1,2 +1,2 @@
 one
-two
+zwei
"""


def mail(subject: str, body: bytes = DIFF, headers: str = "") -> bytes:
    head = "From: A Person <a@example.org>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n"
    return f"{head}Subject: {subject}\n{headers}\nwhy\n---\n".encode() + body


def mbox(*mails: bytes) -> bytes:
    line = b"From 0123456789abcdef0123456789abcdef01234567 Mon Sep 17 00:00:00 2001\n"
    return b"\n".join(line + one for one in mails)


def test_touched_files_and_hunks_of_every_kind_of_change() -> None:
    files = parse_diff((DATA / "mode-rename-quoted.diff").read_text())
    assert [(f.old, f.new) for f in files] == [
        ("scripts/run.sh", "scripts/run.sh"),
        ("drivers/pci/tsm.c", "drivers/pci/tsm/core.c"),
        (None, "Documentation/für\tuns.rst"),
        ("with blank.txt", None),
        (None, "empty"),
    ]
    # "--- two" and "+++ zwei" are lines of the hunk, not a new file
    renamed = files[1].hunks
    assert renamed[0] == Hunk(1, 3, 1, 3, ("one", "-- two", "three"), ("one", "++ zwei", "three"))
    assert renamed[1] == Hunk(10, 1, 10, 2, ("ten",), ("ten", "eleven"))
    assert touched_files(files)[1:3] == ("drivers/pci/tsm.c", "drivers/pci/tsm/core.c")


def test_diff_without_git_lines() -> None:
    text = "--- linux.orig/a b.c\t2024-01-01\n+++ linux/a b.c\t2024-01-02\n@@ -1 +1 @@\n-x\n+y\n"
    text += "--- /dev/null\n+++ linux/new.c\n@@ -0,0 +1 @@\n+n\n"
    assert [f.names for f in parse_diff(text)] == [("a b.c",), ("new.c",)]


def test_broken_hunk_does_not_swallow_the_next_file() -> None:
    text = "--- a/x\n+++ b/x\n@@ -1,9 +1,9 @@\n one\n" + DIFF.decode()
    assert [f.names for f in parse_diff(text)] == [("x",), ("kernel/a.c",)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (["one", "zwei", "x"], "already applied: the file holds the new lines"),
        (["zero", "one", "2"], "line 3 is '2', the patch expects 'two'"),
        (["one"], "the file ends at line 1, the patch expects 'two'"),
        (["a", "b", "one", "two"], "its lines stand at line 3, where git does not take them"),
    ],
)
def test_explain(content: list[str], reason: str) -> None:
    assert explain(parse_diff(DIFF.decode())[0].hunks[0], content) == reason


def test_failures_name_hunk_line_and_missing_file() -> None:
    files = parse_diff((DATA / "mode-rename-quoted.diff").read_text())
    output = (
        "Checking patch drivers/pci/tsm.c => drivers/pci/tsm/core.c...\n"
        "error: while searching for:\nten\n\nerror: patch failed: drivers/pci/tsm.c:10\n"
        "Applying patch drivers/pci/tsm/core.c with 1 reject...\n"
        "Hunk #1 applied cleanly.\nRejected hunk #2.\n"
        "error: with blank.txt: No such file or directory\n"
    )
    found = failures(output, files, {"drivers/pci/tsm.c": ["one", "-- two", "three"]})
    assert [(f.file, f.hunk, f.line) for f in found] == [
        ("drivers/pci/tsm/core.c", 2, 10),
        ("with blank.txt", 1, 1),
    ]
    assert found[1].reason == "No such file or directory"


def test_mbox_is_split_only_at_real_mails() -> None:
    quoting = mail("[PATCH 1/2] a").replace(
        b"why\n", b"why\n\nFrom the log at 10:00 in 2001\nand more\n"
    )
    assert len(split_mbox(mbox(quoting, mail("[PATCH 2/2] b")))) == 2
    generic = b"From list@example.org Tue Mar  5 10:11:12 2024\n" + mail("[PATCH] c")
    assert len(split_mbox(generic + b"\n" + generic)) == 2
    assert split_mbox(DIFF) == (DIFF,)


def test_mbox_is_ordered_by_number_and_names_what_it_left_out() -> None:
    data = mbox(
        mail("[PATCH v2 2/2] second"),
        mail("[PATCH v2 0/2] cover", b"diffstat only\n"),
        mail("Re: [PATCH v2 1/2] first", b"> looks good\n"),
        mail("[PATCH v2 1/2] first"),
    )
    patches, left_out = patches_from_mbox(data, "guest/x", "x.mbox")
    assert [(p.subject, p.name) for p in patches] == [("first", "mbox:4"), ("second", "mbox:1")]
    assert left_out == (
        "mbox:2: cover letter: cover",
        "mbox:3: reply: Re: [PATCH v2 1/2] first",
    )


@pytest.mark.parametrize(
    ("subjects", "message"),
    [
        (["[PATCH 1/3] a", "[PATCH 3/3] c"], "patch 2 of 3 is missing"),
        (["[PATCH 1/2] a", "[PATCH v2 1/2] a", "[PATCH 2/2] b"], "are both patch 1"),
        (["[PATCH 1/2] a", "Re: [PATCH 2/2] b"], "a reply that carries a diff"),
    ],
)
def test_doubtful_mbox_is_refused(subjects: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        patches_from_mbox(mbox(*map(mail, subjects)), "guest/x", "x.mbox")


def test_mail_without_a_diff_is_refused_unless_cover() -> None:
    with pytest.raises(UserError, match=r"x\.mbox: mbox:1: no diff in it: hello"):
        patches_from_mbox(mbox(mail("hello", b"text\n"), mail("[PATCH] a")), "guest/x", "x.mbox")
    with pytest.raises(UserError, match=r"f\.patch: a cover letter: all of it"):
        patch_from_file(mail("[PATCH 0/3] all of it", b"x\n"), "guest/x", "f.patch", "f.patch")
    assert cover_in(mail("[PATCH 0/3] all of it", b"x\n"), "f.patch")
    assert not cover_in(mail("[PATCH 1/3] a"), "f.patch")


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_encoded_body(encoding: str) -> None:
    body = b"why \xc3\xa4\n---\n" + DIFF
    coded = base64.encodebytes(body) if encoding == "base64" else quopri.encodestring(body)
    head = f"From: a@b\nSubject: [PATCH] x\nContent-Transfer-Encoding: {encoding}\n"
    head += "Content-Type: text/plain; charset=utf-8\n\n"
    text = decode_mail(head.encode() + coded, "m").text
    assert to_bytes(text).endswith(body)
    assert "Content-Transfer-Encoding: 8bit" in text


def test_multipart_attachment() -> None:
    raw = (
        b"From: a@b\nSubject: [PATCH] x\nMIME-Version: 1.0\n"
        b'Content-Type: multipart/mixed; boundary="=_1"\n\n--=_1\nContent-Type: text/plain\n\n'
        b"why\n--=_1\nContent-Type: text/x-patch\nContent-Transfer-Encoding: base64\n\n"
        + base64.encodebytes(DIFF)
        + b"--=_1--\n"
    )
    text = decode_mail(raw, "m").text
    assert text.endswith("why\n" + DIFF.decode())


def test_mail_crlf_is_taken_off_once() -> None:
    sent = mail("[PATCH] x").replace(b"\n", b"\r\n")
    assert decode_mail(sent, "m").text == decode_mail(mail("[PATCH] x"), "m").text
    # a file with real CRLF in a CRLF mail keeps one
    real = mail("[PATCH] x", DIFF.replace(b"two\n", b"two\r\n").replace(b"zwei\n", b"zwei\r\n"))
    assert "-two\r\n+zwei\r\n" in decode_mail(real.replace(b"\n", b"\r\n"), "m").text


def test_real_crlf_of_a_file_survives_a_lf_mail() -> None:
    text = decode_mail(mail("[PATCH] x", DIFF.replace(b"two\n", b"two\r\n")), "m").text
    assert "-two\r\n" in text
    assert "@@ -1,2 +1,2 @@\n" in text


def test_base64_of_crlf_text_loses_it() -> None:
    coded = base64.encodebytes((b"why\n---\n" + DIFF).replace(b"\n", b"\r\n"))
    raw = b"From: a@b\nSubject: [PATCH] x\nContent-Transfer-Encoding: base64\n\n" + coded
    assert "\r" not in decode_mail(raw, "m").text


def test_bytes_that_are_not_utf8_survive() -> None:
    body = DIFF.replace(b"zwei", b"zw\xe9i")
    assert to_bytes(decode_mail(mail("[PATCH] x", body), "m").text).endswith(body)


def test_unknown_encoding_is_refused() -> None:
    raw = mail("[PATCH] x", headers="Content-Transfer-Encoding: rot13\n")
    with pytest.raises(UserError, match=r"m\.patch: unknown Content-Transfer-Encoding 'rot13'"):
        decode_mail(raw, "m.patch")


def test_bare_diff_gets_mail_headers_and_an_encoded_subject_is_read() -> None:
    patch = patch_from_file(DIFF, "guest/x", "fix.patch", "fix.patch")
    assert patch.text.startswith("From: ")
    assert patch.subject == "fix.patch"
    assert patch.files == ("kernel/a.c",)
    coded = patch_from_file(mail("=?utf-8?q?=5BPATCH_1/2=5D_f=C3=BCr?=\n alle"), "s", "n", "n")
    assert coded.subject == "für alle"


@pytest.mark.parametrize("path", ["../../etc/passwd", ".git/hooks/post-commit"])
def test_patch_that_leaves_the_tree_is_refused(path: str) -> None:
    body = DIFF.replace(b"kernel/a.c", path.encode())
    with pytest.raises(UserError, match="outside the kernel tree"):
        patch_from_file(mail("[PATCH] x", body), "guest/x", "n", "n")


TOML = """\
[series.one]
title = "First"
why = "because"
drop_when = "never"
kernel = ["7.3", "7.4"]
cover = "one/0000-cover-letter.patch"
patches = [
    "one/0001-a.patch",
    "one/0002-b.patch",
]

[series.two]
title = "Second"
kernel = ["7.3", "8.0"]
patches = ["two/0001-c.patch"]
"""
PRESENT = {
    "one/0000-cover-letter.patch",
    "one/0001-a.patch",
    "one/0002-b.patch",
    "two/0001-c.patch",
}


def test_series_toml_keeps_the_order() -> None:
    one, two = parse_series_toml(TOML, "s.toml", PRESENT)
    assert (one.name, one.kernel, one.patches[1]) == ("one", ("7.3", "7.4"), "one/0002-b.patch")
    assert (two.name, two.cover, two.why) == ("two", "", "")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[series.one]", "[series.one", r"s\.toml: .*line 1"),
        ("why =", "wy =", r"s\.toml:3: series\.one\.wy: unknown key"),
        ("[series.two]", "[sries.two]", r"s\.toml:12: sries: unknown key"),
        ('title = "Second"', "title = 2", r"s\.toml:13: series\.two\.title: must be a string"),
        ('title = "Second"\n', "", r"series\.two\.title: missing or empty"),
        ('["7.3", "8.0"]', '["7.3"]', r"s\.toml:14: series\.two\.kernel"),
        ('["7.3", "8.0"]', '["7.3", 8]', r"series\.two\.kernel: must be a list of strings"),
        ('["7.3", "8.0"]', '["8.0", "7.3"]', r"8\.0 is not below 7\.3"),
        ("one/0002-b.patch", "one/0002-x.patch", r"s\.toml:9: .*0002-x\.patch: no such file"),
        ('    "one/0002-b.patch",\n', "", r"s\.toml: one/0002-b\.patch is not listed"),
        ("two/0001-c.patch", "one/0001-a.patch", r"one/0001-a\.patch is listed twice"),
        ("two/0001-c.patch", "../c.patch", r"\.\./c\.patch lies outside"),
    ],
)
def test_bad_series_toml(old: str, new: str, message: str) -> None:
    assert old in TOML
    with pytest.raises(UserError, match=message):
        parse_series_toml(TOML.replace(old, new, 1), "s.toml", PRESENT)


def test_empty_series_toml() -> None:
    with pytest.raises(UserError, match=r"no \[series\.NAME\] table"):
        parse_series_toml("", "s.toml", set())


@pytest.mark.parametrize(
    ("version", "inside"),
    [
        ("7.2.9", False),
        ("7.3", True),
        ("7.3.4", True),
        ("7.3.0-rc1", True),
        ("7.4.0-rc1", False),
        ("7.4", False),
        ("6.12.9", False),
        ("7.30.1", False),
    ],
)
def test_version_range(version: str, inside: bool) -> None:
    assert in_range(version, ("7.3", "7.4")) is inside


def test_kernel_version_of_a_makefile() -> None:
    text = "# SPDX\nVERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 0\nEXTRAVERSION = -rc2\nNAME = Baby\n"
    assert kernel_version(text) == "7.3.0-rc2"
    assert kernel_version(text.replace("-rc2", "")) == "7.3.0"
    assert kernel_version("all:\n\techo VERSION\n") is None
    assert parse_version("7.3.4-1~bpo") == (7, 3, 4)
    with pytest.raises(UserError, match="'next' is not a kernel version"):
        parse_version("next")
