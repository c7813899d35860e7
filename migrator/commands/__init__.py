"""What the command line can do: a module for each command, loaded when it is wanted.

Each has `arguments(parser)`, which adds what it takes besides its name, and `run(session, options)`, a
coroutine function whose result is the exit code. (`dry_run` is a part of `up`.) Their names and one line of
help each are in `migrator.options`. A plain `up` gets None as its options: reading some would load argparse.
"""
