"""Keys and certificates that sign files, and the reference command of OpenSSF Model Signing."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

CODE_SIGNING, SERVER, CLIENT = (f"1.3.6.1.5.5.7.3.{number}" for number in (3, 1, 2))
MODEL_SIGNING = Path(sys.executable).with_name("model_signing")


class Authority:
    """A certificate that signs others, or somebody's own. Made by another authority, or by itself.

    Args:
        name: Its common name.
        above: Who vouches for it; itself by default.
        may_certify: Whether it may sign other certificates; None: it may, and its key may not.
        may_sign: Whether it may sign files.
        purpose: What it is for; no extended key usage where it is empty.
        alternative: A mail address that it is for, too.
        began: When it became valid; a day ago by default.
        days: How long it is valid.
    """

    def __init__(
        self,
        name: str,
        above: Authority | None = None,
        *,
        may_certify: bool | None = True,
        may_sign: bool = True,
        purpose: str = CODE_SIGNING,
        alternative: str = "",
        began: datetime | None = None,
        days: int = 30,
    ) -> None:
        began = began or datetime.now(UTC) - timedelta(days=1)
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        usage = [may_sign, *[False] * 4, bool(may_certify), *[False] * 3]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(above.certificate.subject if above else subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(began)
            .not_valid_after(began + timedelta(days=days))
            .add_extension(x509.BasicConstraints(may_certify is not False, None), critical=True)
            .add_extension(x509.KeyUsage(*usage), critical=True)
        )
        if purpose and not may_certify:
            builder = builder.add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(purpose)]), critical=False)
        if alternative:
            name_of = x509.SubjectAlternativeName([x509.RFC822Name(alternative)])
            builder = builder.add_extension(name_of, critical=False)
        self.certificate: x509.Certificate = builder.sign(above.key if above else self.key, hashes.SHA256())

    @property
    def text(self) -> str:
        """Its certificate in PEM."""
        return self.certificate.public_bytes(Encoding.PEM).decode()


def model_signing(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the reference command."""
    return subprocess.run([MODEL_SIGNING, *map(str, words)], capture_output=True, text=True, check=False)
