"""The `instructsam bag` command: the pipeline applied to a recording."""
