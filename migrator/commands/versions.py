"""A VERSION on the command line."""

from __future__ import annotations

import argparse

from migrator import naming


def version(given: str) -> str:
    """The version that is meant, for argparse: a file's name or path will do.

    Raises:
        argparse.ArgumentTypeError: None is.
    """
    try:
        return naming.typed(given)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
