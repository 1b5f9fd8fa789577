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
    pem, ca = folder / "server.pem", folder / "ca.crt"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "1", "-subj", f"/CN={address}", "-addext", f"subjectAltName=IP:{address}"]
    subprocess.run([*command, "-keyout", pem, "-out", ca], check=True, capture_output=True)
    pem.write_text(pem.read_text() + ca.read_text())
    return pem, ca
