"""Reads certificates and keys from PEM files, with checks that say what is wrong and with which file."""

from __future__ import annotations

import logging
import stat
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from inferd_agent.errors import ConfigError
from inferd_agent.tls.issue import Pair

log = logging.getLogger(__name__)
_WARN_LEFT = timedelta(days=14)
_MAX_FILE_BYTES = 1 << 20


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The chain in a PEM file, the host's own certificate first."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise ConfigError(f"{path}: not a PEM certificate: {error}") from error


def read_key(path: Path) -> PrivateKeyTypes:
    """An unencrypted private key that not everybody can read."""
    try:
        data = _read(path)
        if path.stat().st_mode & stat.S_IROTH:
            raise ConfigError(f"{path}: every user can read this private key; chmod 0600 (or 0640) it")
        return load_pem_private_key(data, password=None)
    except TypeError as error:
        raise ConfigError(f"{path}: the private key is encrypted; give one without a passphrase") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: not a PEM private key") from error


def check_own(cert: Path, key: Path, now: datetime) -> x509.Certificate:
    """Check a certificate and key that were given; the host's own certificate. Raises ConfigError."""
    leaf = read_certificates(cert)[0]
    if not Pair(leaf, read_key(key)).matches:
        raise ConfigError(f"{key}: is not the key of the certificate in {cert}")
    until, since = leaf.not_valid_after_utc, leaf.not_valid_before_utc
    if now >= until:
        raise ConfigError(f"{cert}: expired on {until:%Y-%m-%d %H:%M} UTC")
    if now < since:
        raise ConfigError(f"{cert}: valid only from {since:%Y-%m-%d %H:%M} UTC; is this machine's clock right?")
    if until - now < _WARN_LEFT:
        log.warning("%s expires on %s", cert, f"{until:%Y-%m-%d %H:%M} UTC")
    return leaf


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
