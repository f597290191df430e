"""The errors a user can fix, and the exit codes every command keeps.

A `JobError` prints one line (what, where, value found, next command) and no traceback:

    JobError
    ├── DataError         65  a file is damaged or its content cannot be used
    ├── UnavailableError  69  an endpoint does not answer or refuses
    ├── StoppedError      75  stopped on purpose (signal, lock, full disk): the same command goes on
    └── ConfigError       78  recipe, constitution or environment is wrong

Anything else that is raised is a bug and keeps its traceback (exit 1). Codes follow sysexits.h.
"""

from __future__ import annotations

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class JobError(Exception):
    """Something the user can fix; `str(error)` is the one line that is printed."""

    exit_code = EXIT_BUG


class DataError(JobError):
    """A data file is damaged, or what it holds cannot be used."""

    exit_code = 65


class UnavailableError(JobError):
    """A service the stage needs does not answer, or refuses to."""

    exit_code = 69


class StoppedError(JobError):
    """The stage stopped on purpose and can be resumed by running it again."""

    exit_code = 75


class ConfigError(JobError):
    """The recipe, the constitution or the environment is wrong."""

    exit_code = 78
