"""What an engine's seccomp profile may forbid, laid upon this very process: import it in one that is to be tried."""

import ctypes
import os
import platform
import struct

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# As on every architecture since 5.3.
CLONE3 = 435


def forbid(call: int, errno: int) -> None:
    """Let a system call fail from here on, for our children, too."""
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (_LOAD_WORD, 0, 0, 0),
            (_JUMP_IF_EQUAL, 0, 1, call),
            (_RETURN, 0, 0, _ERRNO | errno),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    instructions = ctypes.create_string_buffer(program)
    described = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot give up new privileges")
    buffer = ctypes.create_string_buffer(described)
    if prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(buffer), 0, 0) != 0:
        raise OSError(
            ctypes.get_errno(), f"cannot filter system calls on {platform.machine()} as {os.geteuid()}"
        )
