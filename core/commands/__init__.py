"""Subcommands of `instructsam`, with `add_arguments(parser)` and `run(args) -> exit code`, and their shared parts."""
