"""The command line that names no app: --healthcheck, --status, --check."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import sys
from typing import Any, NoReturn

from entrypoint import launch, system
from entrypoint.record import summary
from migrator.version import Version

# Docker gives a health check 30 s; an entrypoint that needs more than this isn't well.
TIMEOUT_S = 5.0

_EPILOG = """\
variables: MIGRATIONS_DIR, DATABASE_URL, NODE_ENV, MIGRATION_TIMEOUT and more (docs/reference/variables.md)
example:   NODE_ENV=production DATABASE_URL=postgresql://... entrypoint -- node server.js"""


def main(arguments: list[str]) -> int:
    """Run the command line that names no app; the exit code."""
    parser = argparse.ArgumentParser(
        prog="entrypoint",
        usage="entrypoint [--] APP [ARG ...]\n"
        "       entrypoint --healthcheck | --status [--json] | --check [--json]",
        description="Start the app at once and migrate its database beside it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--healthcheck", action="store_true", help="exit 0 if healthy, 1 if not")
    what.add_argument("--status", action="store_true", help="what the running entrypoint publishes")
    what.add_argument("--check", action="store_true", help="what of this container is in our way")
    parser.add_argument("--json", action="store_true", help="with --status or --check: for machines")
    parser.add_argument("--version", action=Version, nargs=0, help="which version this is")
    if "--healthcheck" in arguments:
        # Docker reserves exit code 2, which argparse uses for bad usage.
        parser.error = _unhealthy  # type: ignore[method-assign]
    # A container that is full to the brim shall lose a health check, and not its app for it.
    system.offer_to_kernel(1000)
    try:
        options = parser.parse_args([word for word in arguments if word != "--"])
    finally:  # --help ends here
        _flush()
    if options.healthcheck:
        return _healthcheck()
    if options.status:
        return _status(as_json=options.json)
    if options.check:
        from entrypoint.check import command  # late: a health check needs nothing of it

        return command.main(as_json=options.json)
    return parser.error("no app given; say which command to run, e.g. entrypoint -- node server.js")


def _unhealthy(message: str) -> NoReturn:
    launch.say(message)
    sys.exit(1)


def _healthcheck() -> int:
    try:
        code, body = _ask()
        health = _parse(body)
    except (OSError, ValueError, http.client.HTTPException) as error:
        _answer(f"unhealthy: {_reason(error)}")
        return 1
    _answer(f"{'healthy' if code == 200 else 'unhealthy'}: {_summary(health)}")
    return 0 if code == 200 else 1


def _status(*, as_json: bool) -> int:
    try:
        _, body = _ask()
        health = _parse(body)
    except (OSError, ValueError, http.client.HTTPException) as error:
        launch.say(f"cannot ask the running entrypoint: {_reason(error)}")
        return 1
    _answer(body.decode().rstrip("\n") if as_json else _summary(health))
    return 0


def _answer(text: str) -> None:
    """To standard output; where nobody reads it, the exit code still tells."""
    try:
        print(text)
    except OSError:
        pass
    _flush()


def _flush() -> None:
    """Now: at our end Python would do it with a traceback."""
    try:
        if sys.stdout is not None:  # it was closed when we started
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _ask() -> tuple[int, bytes]:
    """The published document, over the socket, or from the marker file where there is no socket.

    Raises:
        OSError: Neither is there.
        ValueError: What is there is no health document.
    """
    directory = os.environ.get("ENTRYPOINT_STATE_DIR", "").strip() or launch.DEFAULT_STATE_DIR
    connection = _UnixConnection(os.path.join(directory, launch.SOCKET_FILE))
    try:
        connection.request("GET", "/api/health")
        response = connection.getresponse()
        return response.status, response.read()
    except TimeoutError:  # it is there but doesn't answer: the marker would hide that
        raise
    except OSError:  # no socket, not ours to open, or its path is too long to have one
        return _read_marker(os.path.join(directory, launch.STATUS_FILE))
    finally:
        connection.close()


def _read_marker(path: str) -> tuple[int, bytes]:
    try:
        with open(path, "rb") as file:
            body = file.read()
    except FileNotFoundError:
        where = os.path.dirname(path)
        nothing = f"nothing is published in {where}; does it run, with this ENTRYPOINT_STATE_DIR?"
        raise FileNotFoundError(2, nothing) from None
    health = _parse(body)
    try:
        os.kill(health["app"]["pid"], 0)
    except (ProcessLookupError, TypeError):
        raise ProcessLookupError(3, "the entrypoint has ended") from None
    except PermissionError:  # it lives, as another user
        pass
    return 200 if health["status"] == "ok" else 503, body


def _parse(body: bytes) -> dict[str, Any]:
    health = json.loads(body)
    try:
        if _summary(health) and {"status", "app"} <= health.keys() and "pid" in health["app"]:
            return dict(health)
    except (TypeError, KeyError):
        pass
    raise ValueError("what is published there is no health document")


def _summary(health: dict[str, Any]) -> str:
    migrations, app = health["migrations"], health["app"]
    said = migrations["error"] or migrations["reason"]
    return f"app {app['status']}, {summary(migrations['status'], migrations['phase'], said)}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class _UnixConnection(http.client.HTTPConnection):
    """http.client over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)
