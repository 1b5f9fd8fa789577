"""Certificates that no system trusts, for servers of the tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def private_certificate(folder: Path, address: str = "127.0.0.1") -> tuple[Path, Path]:
    """A PEM file with the key and certificate of a server at this IP address, and the CA that vouches for it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    pem, ca, key = folder / "server.pem", folder / "ca.crt", folder / "ca.key"
    new = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    subprocess.run([*new, "-subj", "/CN=tests", "-keyout", key, "-out", ca], check=True, capture_output=True)
    signed = [*new, "-subj", f"/CN={address}", "-CA", ca, "-CAkey", key, "-keyout", pem, "-out", folder / "server.crt"]
    signed += ["-addext", f"subjectAltName=IP:{address}", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(signed, check=True, capture_output=True)
    pem.write_text(pem.read_text() + (folder / "server.crt").read_text())
    return pem, ca
