"""PostgreSQL's own parser (libpg_query), as the wheel `postgast` carries it.

Bound here by hand: importing postgast itself brings protobuf, 9 MB that we have no use for.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import cache
from pathlib import Path


class _Error(ctypes.Structure):
    _fields_ = (
        ("message", ctypes.c_char_p),
        ("funcname", ctypes.c_char_p),
        ("filename", ctypes.c_char_p),
        ("lineno", ctypes.c_int),
        ("cursorpos", ctypes.c_int),
        ("context", ctypes.c_char_p),
    )


class _SplitStatement(ctypes.Structure):
    _fields_ = (("location", ctypes.c_int), ("length", ctypes.c_int))


class _SplitResult(ctypes.Structure):
    _fields_ = (
        ("statements", ctypes.POINTER(ctypes.POINTER(_SplitStatement))),
        ("count", ctypes.c_int),
        ("stderr", ctypes.c_char_p),
        ("error", ctypes.POINTER(_Error)),
    )


class _ParseResult(ctypes.Structure):
    _fields_ = (
        ("tree", ctypes.c_char_p),
        ("stderr", ctypes.c_char_p),
        ("error", ctypes.POINTER(_Error)),
    )


class _PlpgsqlResult(ctypes.Structure):
    _fields_ = (("functions", ctypes.c_char_p), ("error", ctypes.POINTER(_Error)))


def split(text: str) -> list[tuple[int, int]] | None:
    """Where each statement is, as start and length in UTF-8 bytes; None if the text isn't SQL."""
    library = _library()
    result = library.pg_query_split_with_parser(text.encode())
    try:
        if result.error:
            return None
        found = [result.statements[number].contents for number in range(result.count)]
        return [(one.location, one.length) for one in found]
    finally:
        library.pg_query_free_split_result(result)


def parse(text: str) -> bytes | None:
    """The parse tree as JSON; None if the text isn't SQL."""
    library = _library()
    result = library.pg_query_parse(text.encode())
    try:
        if result.error:
            return None
        tree: bytes = result.tree
        return tree
    finally:
        library.pg_query_free_parse_result(result)


def parse_plpgsql(text: str) -> bytes | None:
    """What is in a DO block or a function of PL/pgSQL, as JSON; None if it isn't PL/pgSQL."""
    library = _library()
    result = library.pg_query_parse_plpgsql(text.encode())
    try:
        if result.error:
            return None
        functions: bytes = result.functions
        return functions
    finally:
        library.pg_query_free_plpgsql_parse_result(result)


@cache
def _library() -> ctypes.CDLL:
    found = importlib.util.find_spec("postgast")
    assert found is not None
    assert found.submodule_search_locations is not None
    directory = Path(next(iter(found.submodule_search_locations)))
    names = ("libpg_query.so", "libpg_query.dylib")
    library = ctypes.CDLL(str(next(directory / name for name in names if (directory / name).exists())))
    library.pg_query_split_with_parser.argtypes = (ctypes.c_char_p,)
    library.pg_query_split_with_parser.restype = _SplitResult
    library.pg_query_free_split_result.argtypes = (_SplitResult,)
    library.pg_query_free_split_result.restype = None
    library.pg_query_parse.argtypes = (ctypes.c_char_p,)
    library.pg_query_parse.restype = _ParseResult
    library.pg_query_free_parse_result.argtypes = (_ParseResult,)
    library.pg_query_free_parse_result.restype = None
    library.pg_query_parse_plpgsql.argtypes = (ctypes.c_char_p,)
    library.pg_query_parse_plpgsql.restype = _PlpgsqlResult
    library.pg_query_free_plpgsql_parse_result.argtypes = (_PlpgsqlResult,)
    library.pg_query_free_plpgsql_parse_result.restype = None
    return library
