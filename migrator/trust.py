"""Whose certificates we believe where nobody names any: the system's, wherever it keeps them."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping, Sequence

# OpenSSL looks where it was built to look, and only there; our Python may be of another system.
# Debian, Alpine | Fedora, Amazon | SUSE | Alpine without a package
PLACES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
# What comes along with our own Python (docs/explanation/bundle.md): many an image has none.
OURS = os.path.join(sys.prefix, "lib", "cacert.pem")


def context() -> ssl.SSLContext:
    """For a client that checks who answers, by the system's certificates, or by those that come with us."""
    made = ssl.create_default_context()
    path = instead(ssl.get_default_verify_paths(), os.environ, (*PLACES, OURS))
    if path is not None:
        made.load_verify_locations(path)
    return made


def instead(
    defaults: ssl.DefaultVerifyPaths, environ: Mapping[str, str], places: Sequence[str]
) -> str | None:
    """The first of the places that holds any, where OpenSSL's own hold none; None where they do.

    None as well where SSL_CERT_FILE or SSL_CERT_DIR are set: somebody has decided, be it for nobody.
    """
    if defaults.openssl_cafile_env in environ or defaults.openssl_capath_env in environ:
        return None
    # Both are None where they don't exist, whatever the type says.
    if defaults.cafile or (defaults.capath and _holds_any(defaults.capath)):
        return None
    return next(filter(os.path.isfile, places), None)


def _holds_any(directory: str) -> bool:
    try:
        return bool(os.listdir(directory))
    except OSError:
        return False
