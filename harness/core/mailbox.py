# SPDX-License-Identifier: GPL-2.0-only
"""Mails that carry patches: split an mbox, decode a mail into what `git am` takes.

Bytes that are not UTF-8 survive as surrogate escapes: encode with `to_bytes` to write a text out.

Line ends: a mail whose header lines end in CRLF was made so by a mailer, and every line loses one
CR. Otherwise a CR at a line's end belongs to the patched file and stays, unless the diff's own
header lines carry it too (a base64 or quoted-printable body made from CRLF text).
"""

from __future__ import annotations

import base64
import binascii
import email
import email.errors
import quopri
import re
from dataclasses import dataclass
from email.header import decode_header, make_header

from harness.errors import UserError

_HEADER = re.compile(rb"^[!-9;-~]+:(?:[ \t]|\r?$)")
_FROM_LINE = re.compile(rb"^From \S.*\d\d?:\d\d.*\d{4}")
_STRUCTURE = re.compile(rb"^(?:diff --git |--- |\+\+\+ |@@ -)[^\n]*\n", re.MULTILINE)
_DIFF = re.compile(r"^(?:diff --git |--- [^\n]*\n\+\+\+ )", re.MULTILINE)
_NUMBER = re.compile(r"^\s*\[[^\]]*?\b(\d+)/(\d+)[^\]]*\]")
_TAGS = re.compile(r"^\s*(?:\[[^\]]*\]\s*)*")
_REPLY = re.compile(r"^\s*(?:re|aw|sv)\s*:", re.IGNORECASE)
_PATCH_PARTS = ("text/plain", "text/x-patch", "text/x-diff")


@dataclass(frozen=True, slots=True)
class Mail:
    """A decoded mail. number, total: of "[PATCH 2/5]", 0 and 0 when it has none.

    subject: without its tags. text: headers and body for `git am --keep-cr`, LF, 8bit.
    """

    subject: str
    number: int
    total: int
    numbered: bool
    reply: bool
    text: str
    has_diff: bool

    @property
    def cover(self) -> bool:
        return self.numbered and self.number == 0


def to_bytes(text: str) -> bytes:
    """The bytes of a decoded text, those that were not UTF-8 included."""
    return text.encode("utf-8", "surrogateescape")


def to_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def split_mbox(data: bytes) -> tuple[bytes, ...]:
    """The mails of an mbox, without their "From " lines; a file without one is a single mail.

    A "From " line inside a message body is none unless it holds a date, follows an empty line (or
    starts the file) and is followed by a header line.
    """
    lines = _lines(data)
    starts = [
        at
        for at, line in enumerate(lines)
        if _FROM_LINE.match(line)
        and (at == 0 or not lines[at - 1].strip())
        and at + 1 < len(lines)
        and _HEADER.match(lines[at + 1])
    ]
    if not starts or any(line.strip() for line in lines[: starts[0]]):
        return (data,)
    ends = [*starts[1:], len(lines)]
    return tuple(b"".join(lines[a + 1 : b]) for a, b in zip(starts, ends, strict=True))


def decode_mail(raw: bytes, where: str) -> Mail:
    """A mail, or a bare diff, as `git am` takes it. where: names it in errors."""
    headers, body, mail_crlf = _split_head(raw)
    if mail_crlf:
        body = body.replace(b"\r\n", b"\n")
    charset = _charset(headers.get("content-type", ""))
    if headers.get("content-type", "").lower().startswith("multipart/"):
        body, charset = _multipart(raw)
    else:
        body = _transfer_decoded(body, headers.get("content-transfer-encoding", ""), where)
    structure = _STRUCTURE.findall(body)
    if structure and all(line.endswith(b"\r\n") for line in structure):
        body = body.replace(b"\r\n", b"\n")
    raw_subject = headers.get("subject", f"[PATCH] {where}")
    shown = _readable(raw_subject)
    match = _NUMBER.match(_REPLY.sub("", shown))
    text = _rendered(headers, raw_subject, charset, to_text(body))
    return Mail(
        subject=_TAGS.sub("", shown),
        number=int(match[1]) if match else 0,
        total=int(match[2]) if match else 0,
        numbered=match is not None,
        reply=_REPLY.match(shown) is not None,
        text=text,
        has_diff=_DIFF.search(to_text(body)) is not None,
    )


def _lines(data: bytes) -> list[bytes]:
    # bytes.splitlines() also cuts at a lone CR, which may stand in a patched file
    parts = data.split(b"\n")
    last = [parts[-1]] if parts[-1] else []
    return [part + b"\n" for part in parts[:-1]] + last


def _split_head(raw: bytes) -> tuple[dict[str, str], bytes, bool]:
    """Headers by lower-case name (unfolded), the body, and whether header lines end in CRLF."""
    lines = _lines(raw)
    if lines and _FROM_LINE.match(lines[0]):
        lines = lines[1:]
    headers: dict[str, str] = {}
    name = ""
    for at, line in enumerate(lines):
        text = to_text(line).rstrip("\r\n")
        if not text:
            if not headers.keys() & {"from", "subject"}:
                break
            return headers, b"".join(lines[at + 1 :]), lines[0].endswith(b"\r\n")
        if text[0] in " \t" and name:
            headers[name] += " " + text.strip()
        elif _HEADER.match(line):
            name = text.split(":", 1)[0].lower()
            headers.setdefault(name, text.split(":", 1)[1].strip())
        else:
            break
    return {}, b"".join(lines), False


def _charset(content_type: str) -> str:
    match = re.search(r"charset=\"?([^\s\";]+)", content_type, re.IGNORECASE)
    return match[1] if match else "UTF-8"


def _transfer_decoded(body: bytes, encoding: str, where: str) -> bytes:
    kind = encoding.strip().lower()
    if kind == "quoted-printable":
        return quopri.decodestring(body)
    if kind == "base64":
        try:
            # a list's footer may follow the encoded text
            encoded = re.match(rb"[A-Za-z0-9+/=\s]*", body)
            return base64.b64decode(encoded[0] if encoded else b"")
        except binascii.Error as exc:
            raise UserError(f"{where}: its base64 body cannot be decoded: {exc}") from exc
    if kind in ("", "7bit", "8bit", "binary"):
        return body
    raise UserError(f"{where}: unknown Content-Transfer-Encoding {encoding!r}")


def _multipart(raw: bytes) -> tuple[bytes, str]:
    """The text parts of a multipart mail, joined, and the first one's character set."""
    parts: list[bytes] = []
    charset = ""
    for part in email.message_from_bytes(raw).walk():
        payload = part.get_payload(decode=True)
        if part.get_content_type() in _PATCH_PARTS and isinstance(payload, bytes):
            parts.append(payload.rstrip(b"\r\n") + b"\n")
            charset = charset or part.get_content_charset("")
    return b"".join(parts), charset or "UTF-8"


def _readable(subject: str) -> str:
    try:
        text = str(make_header(decode_header(subject)))
    except (LookupError, UnicodeError, email.errors.MessageError):
        text = subject
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _rendered(headers: dict[str, str], subject: str, charset: str, body: str) -> str:
    # "From:" first: that is how git am knows a mail; no "From " line: it is never split again
    head = [
        f"From: {headers.get('from', 'unknown <unknown@localhost>')}",
        f"Date: {headers.get('date', 'Thu, 1 Jan 1970 00:00:00 +0000')}",
        f"Subject: {subject}",
        "MIME-Version: 1.0",
        f"Content-Type: text/plain; charset={charset}",
        "Content-Transfer-Encoding: 8bit",
    ]
    return "\n".join(head) + "\n\n" + body
