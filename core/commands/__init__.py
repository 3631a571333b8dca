"""The subcommands of `instructsam`: a module each, with `add_arguments(parser)` and `run(args) -> exit code`."""
