"""Errors for people, each with the exit code that tells a machine what went wrong."""

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """What a stage or `moco` exits with; values of sysexits.h where it has one."""

    OK = 0
    FAILURE = 1  # a defect: the traceback is shown
    USAGE = 64  # the command line is wrong
    BAD_DATA = 65  # a data set, artifact or checkpoint is not what it must be
    NON_FINITE = 70  # the loss is NaN or infinite
    LOST_CLUSTER = 68  # the cluster or its pipeline server is unreachable, or refuses
    LOST_STORE = 69  # the store is unreachable, refuses the credentials or lacks the bucket
    DISK_FULL = 73
    NO_PERMISSION = 77  # a folder cannot be written
    INTERRUPTED = 75  # stopped by a signal after saving; the same command continues
    BAD_CONFIG = 78


class MocoError(Exception):
    """An error whose message tells a person what is wrong, where, and the way out.

    It is shown without a traceback; every subclass has its exit code.
    """

    exit_code = ExitCode.FAILURE


class UsageError(MocoError):
    """The command line asks for something that does not exist."""

    exit_code = ExitCode.USAGE


class ConfigError(MocoError):
    """A config value is wrong; the message lists every fault with its path."""

    exit_code = ExitCode.BAD_CONFIG


class DataError(MocoError):
    """A data set, an artifact or a checkpoint is not what it must be."""

    exit_code = ExitCode.BAD_DATA


class StoreError(MocoError):
    """The artifact store cannot be reached, or refuses."""

    exit_code = ExitCode.LOST_STORE


class ClusterError(MocoError):
    """The cluster or its pipeline server cannot be reached, refuses, or lacks something."""

    exit_code = ExitCode.LOST_CLUSTER


class NonFiniteLossError(MocoError):
    """The loss became NaN or infinite; nothing was saved after it."""

    exit_code = ExitCode.NON_FINITE


class DiskFullError(MocoError):
    """No space is left on a device; what was saved before is intact."""

    exit_code = ExitCode.DISK_FULL


class NotWritableError(MocoError):
    """An output cannot be written where it should be."""

    exit_code = ExitCode.NO_PERMISSION


class Interrupted(MocoError):  # noqa: N818 - not a fault: the work continues where it stopped
    """A signal asked the work to stop, and everything needed to go on is saved."""

    exit_code = ExitCode.INTERRUPTED


def of_os_error(error: OSError, place: object = None) -> MocoError | None:
    """Return the error for people behind a full disk or a forbidden path; None for any other.

    Args:
        error: What the operating system said.
        place: What could not be written, if the error does not know.
    """
    where = error.filename or place or "an output"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"{where}: no space left; free some, and run the same command again")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotWritableError(
            f"{where}: {error.strerror}; choose a place that this user may write"
        )
    return None
