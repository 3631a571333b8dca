"""The `instructsam demo` command: camera, node and user as three processes that share only DDS."""
