"""Starts a program where the engine doesn't let posix_spawn do it.

Docker before 20.10.10 answers clone3(2) with EPERM instead of "no such call"; glibc since 2.34 takes that as
the last word, and so neither spawns nor makes threads (moby/moby#42680). fork(2) needs no clone3.
"""

import _signal
import os

_EPERM = 1


def start(
    program: str,
    argv: list[str],
    env: dict[bytes, bytes],
    *,
    mask: frozenset[int],
    file_actions: tuple[tuple[object, ...], ...],
    reset: tuple[int, ...],
) -> int:
    """As `os.posix_spawnp` with `setpgroup=0`: the pid, once the program runs in a process group of its own.

    Raises:
        OSError: It can't be started.
    """
    signals = _signal.valid_signals()
    handled = [number for number in signals if callable(_signal.getsignal(number))]
    reader, writer = os.pipe()
    # Or the child would run our handlers, which wake our own loop.
    held = _signal.pthread_sigmask(_signal.SIG_BLOCK, signals)
    try:
        pid = os.fork()
        if pid == 0:
            reset = (*handled, *reset)
            _become(program, argv, env, mask=mask, file_actions=file_actions, reset=reset, writer=writer)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, held)
        os.close(writer)
    with open(reader, "rb") as failure:
        number = failure.read()
    if number:
        os.waitpid(pid, 0)
        raise OSError(int(number), os.strerror(int(number)), program)
    return pid


def _become(
    program: str,
    argv: list[str],
    env: dict[bytes, bytes],
    *,
    mask: frozenset[int],
    file_actions: tuple[tuple[object, ...], ...],
    reset: tuple[int, ...],
    writer: int,
) -> None:
    """Exec the program, or write why not; never returns."""
    number = 0
    try:
        os.setpgid(0, 0)
        for action in file_actions:
            writer = _act(action, writer)
        for one in reset:
            _signal.signal(one, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        os.execvpe(program, argv, env)  # noqa: S606 - as posix_spawnp does
    except OSError as error:
        number = error.errno or 0
    finally:
        os.write(writer, b"%d" % (number or _EPERM))
        os._exit(127)


def _act(action: tuple[object, ...], writer: int) -> int:
    """Do what `os.posix_spawn` would do; where `writer` is now, as its place may have been wanted."""
    match action:
        case (os.POSIX_SPAWN_OPEN, int(target), str(path), int(flags), int(mode)):
            source = os.open(path, flags, mode)
        case (os.POSIX_SPAWN_DUP2, int(source), int(target)):
            pass
        case _:
            raise OSError(_EPERM, f"cannot do {action}")
    if writer == target:
        writer = os.dup(writer)
    os.dup2(source, target)
    os.set_inheritable(target, True)
    return writer
