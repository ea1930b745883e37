"""Writes what a check found; an error is a finding, too."""

from components.core.errors import ExitCode, MocoError
from pipelines.backends.findings import Finding


class FaultError(MocoError):
    """What a check cannot go on without; it becomes a failed finding."""

    def __init__(self, words: str, *way_out: str, code: ExitCode = ExitCode.LOST_CLUSTER) -> None:
        super().__init__(words)
        self.way_out = way_out
        self.exit_code = code


class MissingError(FaultError):
    """The cluster has no such object."""


class UnknownUserError(FaultError):
    """The cluster does not accept the credentials."""


class RefusedError(FaultError):
    """This user may not do that."""


def ok(words: str) -> Finding:
    """Return what is as it should be."""
    return Finding("ok", words)


def warning(words: str, *way_out: str) -> Finding:
    """Return what may become a problem."""
    return Finding("warning", words, way_out)


def failed(words: str, *way_out: str, code: ExitCode = ExitCode.LOST_CLUSTER) -> Finding:
    """Return what will make runs fail."""
    return Finding("failed", words, way_out, code)


def skipped(words: str) -> Finding:
    """Return what could not be looked at, and why."""
    return Finding("skipped", words)


def of_error(error: MocoError) -> Finding:
    """Return the failure behind an error."""
    way_out = error.way_out if isinstance(error, FaultError) else ()
    return failed(str(error), *way_out, code=error.exit_code)
