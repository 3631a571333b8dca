"""Exit codes of every command: docs/commands.md and --help show this table."""

import signal

DONE = 0
FAILED = 1
USAGE = 2
SOME_FAILED = 3
STORAGE = 4
IN_USE = 5
HANGUP = 128 + signal.SIGHUP
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + signal.SIGPIPE
TERMINATED = 128 + signal.SIGTERM

MEANINGS = {
    DONE: 'done, also if nothing matches an instruction',
    FAILED: 'an unexpected error, or every input failed',
    USAGE: 'the arguments or the input cannot be used',
    SOME_FAILED: 'done, but some inputs failed or were left out; they are named',
    STORAGE: 'the storage failed: disk full, read-only, folder removed; the same command resumes',
    IN_USE: 'another process is writing the folder',
    HANGUP: 'stopped by SIGHUP',
    INTERRUPTED: 'stopped by SIGINT (Ctrl-C)',
    BROKEN_PIPE: 'the reader of the output has closed it, as in `| head`',
    TERMINATED: 'stopped by SIGTERM',
}


def describe() -> str:
    """Return the table in one paragraph."""
    return 'Exit codes: ' + '; '.join(f'{code} {meaning}' for code, meaning in MEANINGS.items()) + '.'
