"""Subcommands of `instructsam` and what all command lines share.

A subcommand is a module with `add_arguments(parser)` and `run(args) -> exit code`.
"""
