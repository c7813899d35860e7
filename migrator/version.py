"""The option --version of both command lines."""

from __future__ import annotations

import argparse
from typing import NoReturn


class Version(argparse.Action):
    """Looks the version up only when asked: importlib.metadata is 20 ms that no start needs."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print it and end."""
        from importlib import metadata

        print(metadata.version("entrypoint"))
        parser.exit()
