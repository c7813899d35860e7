import ssl
from pathlib import Path

import pytest

from migrator import trust


def defaults(cafile: Path, capath: Path) -> ssl.DefaultVerifyPaths:
    return ssl.DefaultVerifyPaths(
        str(cafile) if cafile.is_file() else None,
        str(capath) if capath.is_dir() else None,
        "SSL_CERT_FILE",
        str(cafile),
        "SSL_CERT_DIR",
        str(capath),
    )


@pytest.mark.parametrize(
    ("there", "environ", "chosen"),
    [
        pytest.param(("debian", "ours"), {}, "debian", id="the system's, where OpenSSL doesn't look"),
        pytest.param(("fedora", "ours"), {}, "fedora", id="another system's"),
        pytest.param(("ours",), {}, "ours", id="those that come with us, where the system has none"),
        pytest.param((), {}, None, id="none anywhere"),
        pytest.param(("default.pem", "debian", "ours"), {}, None, id="OpenSSL's own file"),
        pytest.param(("certs/1.pem", "debian", "ours"), {}, None, id="OpenSSL's own directory"),
        pytest.param(("certs/", "ours"), {}, "ours", id="OpenSSL's own directory is empty"),
        pytest.param(
            ("debian", "ours"), {"SSL_CERT_FILE": "/gone"}, None, id="a file is named, even if it is gone"
        ),
        pytest.param(("debian", "ours"), {"SSL_CERT_DIR": "/gone"}, None, id="a directory is named"),
    ],
)
def test_certificates_are_the_systems_or_else_ours(tmp_path, there, environ, chosen):
    for name in there:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_text("")
    places = [str(tmp_path / name) for name in ("debian", "fedora", "ours")]

    found = trust.instead(defaults(tmp_path / "default.pem", tmp_path / "certs"), environ, places)

    assert found == (chosen and str(tmp_path / chosen))


def test_the_context_checks_names_and_certificates():
    made = trust.context()

    assert made.check_hostname
    assert made.verify_mode is ssl.CERT_REQUIRED
