"""Checks of the network settings in the environment, proxies and certificates, before a library uses them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from tamis.core.errors import SettingsError

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_SCHEMES = ("http", "https", "socks5", "socks5h")


def check_network() -> None:
    """Make sure that the certificates and proxies that environment variables name can be used.

    Raises:
        SettingsError: naming the variable and the problem.
    """
    for name in _CERTIFICATES:
        place = os.environ.get(name)
        if place and not Path(place).exists():
            raise SettingsError(f"{name} names {place}, which does not exist", action=f"correct or unset {name}")
    for scheme, proxy in getproxies().items():
        if scheme != "no":
            _check_proxy(f"{scheme.upper()}_PROXY", proxy)


def uses_socks() -> bool:
    """Whether an environment variable names a SOCKS proxy."""
    return any(urlsplit(proxy).scheme.startswith("socks") for scheme, proxy in getproxies().items() if scheme != "no")


def _check_proxy(name: str, proxy: str) -> None:
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        good = parts.scheme in _SCHEMES and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # of the port
        good = False
    if not good:
        raise SettingsError(
            f"{name} (or {name.lower()}) is {proxy!r}, which is not the address of a proxy",
            allowed=f"{', '.join(_SCHEMES)}, as in http://proxy.example:3128",
            action=f"correct or unset {name}",
        )
    if parts.scheme.startswith("socks") and find_spec("socksio") is None:
        raise SettingsError(
            f"{name} (or {name.lower()}) names a SOCKS proxy, but the package 'socksio' is not installed",
            action=f"pip install socksio, or unset {name}",
        )
