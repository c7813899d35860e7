"""The option --version of both command lines."""

from __future__ import annotations

import argparse
import os
from typing import NoReturn


class Version(argparse.Action):
    """Looks the version up only when asked: importlib.metadata is 20 ms that no start needs."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print it and end."""
        from importlib import metadata

        try:
            print(metadata.version("entrypoint"), flush=True)
        except OSError:  # nobody reads it any more
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        parser.exit()
