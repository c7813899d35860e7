"""The hot path: hold signals, start the app, then load everything else; if that fails, babysit."""

import os
import sys

from entrypoint import launch


def main() -> None:
    """Run the entrypoint with `sys.argv`; ends the process and never returns."""
    arguments = sys.argv[1:]
    argv = launch.app_command(arguments)
    if not argv and (arguments not in ([], ["--"]) or launch.mode() != "only"):
        from entrypoint import client

        sys.exit(client.main(arguments))

    app = launch.current or launch.begin(argv)
    try:
        from entrypoint import supervisor

        code = supervisor.main(app)
    except BaseException as error:  # noqa: BLE001 - PID 1's first duty can't depend on our code being right
        launch.say(f"internal error, only looking after the app from here on: {launch.where(error)}")
        code = launch.babysit(app)
    if app.terminal:
        launch.take_terminal_back()
    # Not sys.exit: tearing the interpreter down takes longer than anything that is left to do.
    os._exit(code)


if __name__ == "__main__":
    main()
