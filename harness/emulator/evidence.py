# SPDX-License-Identifier: GPL-2.0-only
"""Evidence of a device: certificate chain, interface report, signed measurements.

The device has an ECDSA P-384 key per run, certified by a root made for the run. The statement is
signed over the guest's nonce and the lock's generation. `verify` is what a relying party does.

Statement (little endian):
    magic "TDEV", u16 version 1, u8 TDISP state, u8 nonce length, u32 interface id, u32 reserved,
    u64 generation, 32 bytes nonce (zero-padded), 48 bytes SHA-384 of the certificate chain,
    48 bytes SHA-384 of the interface report (zero when UNLOCKED),
    u32 count, then per measurement u8 index, u8 kind, u16 size 48, 48 bytes SHA-384
    and last the signature over all of the above with SHA-384: r and s, 48 bytes big endian each.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.x509.oid import NameOID

from harness.emulator.words import Injection, TdiState

NONCE_BYTES = 32
_MAGIC = b"TDEV"
_HEAD = struct.Struct("<4sHBBIIQ32s48s48sI")
_MEASUREMENT = struct.Struct("<BBH48s")
_INTEGER_BYTES = 48
_SIGNATURE_BYTES = 2 * _INTEGER_BYTES
# No clock decides over test certificates: a VM's clock may stand in 1970 or be ahead.
_NOT_BEFORE = datetime.datetime(1970, 1, 1)
_NOT_AFTER = datetime.datetime(2049, 12, 31)

_SPECIFIC = bytes(number % 251 for number in range(6000))

# index, kind (SPDM: 0 immutable ROM, 1 mutable firmware, 3 firmware configuration), content
FIRMWARE = (
    (1, 0, b"tdisp-harness emulated endpoint, boot ROM 1"),
    (2, 1, b"tdisp-harness emulated endpoint, firmware 1"),
    (3, 3, b"tdisp-harness emulated endpoint, configuration 1"),
)


class EvidenceError(Exception):
    """Evidence that a relying party refuses."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What the statement is made over."""

    interface_id: int
    state: TdiState
    generation: int
    nonce: bytes
    report: bytes


@dataclass(frozen=True, slots=True)
class Statement:
    """A verified statement. measurements: index to digest."""

    interface_id: int
    state: TdiState
    generation: int
    nonce: bytes
    measurements: dict[int, bytes]


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    is_root = subject == issuer
    usage = x509.KeyUsage(
        digital_signature=not is_root,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_root,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )
    return builder.sign(issuer_key, hashes.SHA384())


def interface_report(mmio_pages: int, msix_control: int) -> bytes:
    """A TDISP interface report (PCIe r7.0, section 11.3, TDI report structure).

    One MMIO range with a zero base (reported by offset), and a device-specific part, which is there
    to be long: the guest needs a buffer larger than a page and several messages for it.
    """
    head = struct.pack("<HHHHI", 0, 0, msix_control, 0, 0)
    ranges = struct.pack("<IQII", 1, 0, mmio_pages, 0)
    return head + ranges + struct.pack("<I", len(_SPECIFIC)) + _SPECIFIC


class Device:
    """The device's identity for one run. make_key: passed in so that tests can count keys."""

    def __init__(
        self,
        make_key: Callable[[], ec.EllipticCurvePrivateKey] = lambda: ec.generate_private_key(
            ec.SECP384R1()
        ),
    ) -> None:
        self._make_key = make_key
        root_key, self._key = make_key(), make_key()
        root_name, device_name = "TDISP harness root", "TDISP harness device"
        self.root = _certificate(root_name, root_key, root_name, root_key)
        self.leaf = _certificate(device_name, self._key, root_name, root_key)

    def root_der(self) -> bytes:
        return self.root.public_bytes(serialization.Encoding.DER)

    def chain(self, injection: Injection | None = None) -> bytes:
        """DER certificates, root first. WRONG_CHAIN: a leaf that the root did not sign."""
        leaf = self.leaf
        if injection is Injection.WRONG_CHAIN:
            stranger = self._make_key()
            leaf = _certificate("TDISP harness device", self._key, "TDISP harness root", stranger)
        return self.root_der() + leaf.public_bytes(serialization.Encoding.DER)

    def statement(self, claims: Claims, injection: Injection | None = None) -> bytes:
        """A signed statement; `injection` makes exactly one thing in it wrong."""
        nonce = claims.nonce
        if injection is Injection.WRONG_NONCE:
            nonce = bytes(byte ^ 0xFF for byte in nonce) or b"\xff"
        report = hashlib.sha384(claims.report).digest() if claims.report else bytes(48)
        # WRONG_CHAIN is a chain that fails, not a statement over another chain
        body = _HEAD.pack(
            _MAGIC,
            1,
            claims.state,
            len(nonce),
            claims.interface_id,
            0,
            claims.generation,
            nonce,
            hashlib.sha384(self.chain()).digest(),
            report,
            len(FIRMWARE),
        )
        for index, kind, content in FIRMWARE:
            if injection is Injection.WRONG_MEASUREMENT and index == 2:
                content = b"another firmware"  # noqa: PLW2901
            body += _MEASUREMENT.pack(index, kind, 48, hashlib.sha384(content).digest())
        key = self._make_key() if injection is Injection.WRONG_KEY else self._key
        r, s = decode_dss_signature(key.sign(body, ec.ECDSA(hashes.SHA384())))
        return body + r.to_bytes(_INTEGER_BYTES, "big") + s.to_bytes(_INTEGER_BYTES, "big")


def expected_measurements() -> dict[int, bytes]:
    """The reference values of the emulated device."""
    return {index: hashlib.sha384(content).digest() for index, _, content in FIRMWARE}


def split_chain(chain: bytes) -> list[bytes]:
    """DER certificates out of their concatenation. Raises EvidenceError."""
    parts = []
    while chain:
        if len(chain) < 4 or chain[0] != 0x30:
            raise EvidenceError("certificate chain: not DER")
        if chain[1] < 0x80:
            size = 2 + chain[1]
        else:
            width = chain[1] & 0x7F
            size = 2 + width + int.from_bytes(chain[2 : 2 + width], "big")
        if size > len(chain):
            raise EvidenceError("certificate chain: truncated")
        parts.append(chain[:size])
        chain = chain[size:]
    return parts


def _leaf_key(chain: bytes, root_der: bytes) -> ec.EllipticCurvePublicKey:
    try:
        certificates = [x509.load_der_x509_certificate(part) for part in split_chain(chain)]
        if not certificates or certificates[0].public_bytes(serialization.Encoding.DER) != root_der:
            raise EvidenceError("certificate chain: does not start at the trusted root")
        for issuer, subject in itertools.pairwise(certificates):
            subject.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError) as exc:
        raise EvidenceError(f"certificate chain: {exc or 'bad signature'}") from exc
    key = certificates[-1].public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise EvidenceError("certificate chain: not an EC key")
    return key


def verify(blob: bytes, chain: bytes, root_der: bytes, nonce: bytes, report: bytes) -> Statement:
    """Check chain, signature, nonce, report and measurements. Raises EvidenceError."""
    key = _leaf_key(chain, root_der)
    if len(blob) < _HEAD.size + _SIGNATURE_BYTES:
        raise EvidenceError("statement: truncated")
    body, signature = blob[:-_SIGNATURE_BYTES], blob[-_SIGNATURE_BYTES:]
    r = int.from_bytes(signature[:_INTEGER_BYTES], "big")
    s = int.from_bytes(signature[_INTEGER_BYTES:], "big")
    try:
        key.verify(encode_dss_signature(r, s), body, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as exc:
        raise EvidenceError("statement: bad signature") from exc
    fields = _HEAD.unpack_from(body)
    magic, version, state, nonce_len, interface, _, generation, raw, over, about, count = fields
    if magic != _MAGIC or version != 1 or len(body) != _HEAD.size + count * _MEASUREMENT.size:
        raise EvidenceError("statement: bad format")
    if raw[:nonce_len] != nonce:
        raise EvidenceError("statement: nonce differs")
    if over != hashlib.sha384(chain).digest():
        raise EvidenceError("statement: made over another certificate chain")
    if about != (hashlib.sha384(report).digest() if report else bytes(48)):
        raise EvidenceError("statement: made over another interface report")
    measured = {}
    for number in range(count):
        at = _HEAD.size + number * _MEASUREMENT.size
        index, _, _, digest = _MEASUREMENT.unpack_from(body, at)
        measured[index] = digest
    if measured != expected_measurements():
        raise EvidenceError("statement: measurement differs")
    return Statement(interface, TdiState(state), generation, nonce, measured)
