"""The hot path: hold signals, start the app, then load everything else; if that fails, babysit."""

import os
import sys

from entrypoint import launch


def main() -> None:
    """Run the entrypoint with `sys.argv`; ends the process and never returns."""
    arguments = sys.argv[1:]
    argv = launch.app_command(arguments)
    if not argv and (set(arguments) - {"--"} or launch.mode() != "only"):
        from entrypoint import client

        sys.exit(client.main(arguments))

    app = launch.current or launch.begin(argv)
    from entrypoint import babysit  # not before the app runs

    try:
        launch.fill_standard_streams()
        _forget_working_directory()
        if app.pid is not None:
            from entrypoint import patience

            patience.wait_for_processor(app.pid)
        from entrypoint import init

        code = init.main(app)
    except BaseException as error:  # noqa: BLE001 - PID 1's first duty can't depend on our code being right
        problem = f"internal error, only looking after the app from here on: {launch.where(error)}"
        launch.say(problem)
        code = babysit.babysit(app, problem)
    if app.terminal:
        launch.take_terminal_back()
    # Not sys.exit: tearing the interpreter down takes longer than anything that is left to do.
    os._exit(code)


def _forget_working_directory() -> None:
    """Take back what `python -m` did to sys.path: the app's email.py isn't the one that we import."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not sys.flags.safe_path and sys.path[0] != root:
        del sys.path[0]


if __name__ == "__main__":
    main()
