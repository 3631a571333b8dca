"""Subcommands of `instructsam`, each with `add_arguments(parser)` and `run(args) -> exit code`, and what they share."""
