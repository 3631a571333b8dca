"""A stand-in for viewer.recording.Recording, which needs Rerun, that keeps what is logged."""


class LoggedRecording:
    """Keeps (name, stamp in s, arguments) of every call of a method log_NAME in `logged`."""

    def __init__(self):
        self.logged, self._stamp = [], None

    def set_time(self, stamp, bag_time_ns):
        self._stamp = stamp.sec

    def __getattr__(self, name):
        if not name.startswith('log_'):
            raise AttributeError(name)
        return lambda *arguments: self.logged.append((name.removeprefix('log_'), self._stamp, arguments))

    def of(self, name):
        """Return [(stamp, arguments...)] of log_NAME."""
        return [(stamp, *arguments) for each, stamp, arguments in self.logged if each == name]
