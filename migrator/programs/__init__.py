"""Whatever else migrates than our own engine: commands, scripts, other tools, plug-ins, all under our lease.

`walk.up` is the way in. Loaded only where `MIGRATION_RUNNER` asks for it.
"""
