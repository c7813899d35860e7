"""Hazards of migrations, told before anything runs: rules on parse trees and on what the catalogs know.

`check.check` is the whole of it; `reading` asks the catalogs, `guard` is the look before `migrator up` applies
anything, `fix` writes safe forms, `show` is for people and machines.
"""
