"""The command line `moco`."""

import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from components.core.errors import ExitCode, MocoError, of_os_error

HELP = "The transfer experiments of the MoCo paper's appendix: measured beside published."
EPILOGUE = """\
Start with: moco run first_look --scale digits

RUN is a run's id or the beginning of one, a recipe (its newest run, reruns aside), a path, \
or the URL of a run's folder in a bucket. Runs are kept in ./runs, or where MOCO_RUNS says. Every \
command takes --traceback, or MOCO_TRACEBACK=1, to show where an error arose.

Exit codes: 0 done; 1 a defect; 64 wrong command line; 65 bad data set or artifact; 68 cluster \
not there or not right; 69 store lost; 70 loss not finite; 73 disk full; 75 interrupted, the same \
command continues; 77 not allowed or not writable; 78 bad config. `moco run` \
and `moco status RUN --watch` exit with the code of the step that failed first."""

COMMANDS = {
    "list": ("list:list_recipes", "List the recipes, with the tables and rows they fill."),
    "plan": ("plan:plan", "Show what a recipe would run and reuse, and what it may cost."),
    "compile": ("compile:compile_recipe", "Write a recipe as a Kubeflow pipeline."),
    "run": ("run:run", "Run a recipe on this machine."),
    "submit": ("submit:submit", "Run a recipe on a cluster."),
    "status": ("status:status", "List the runs, or the steps of one."),
    "logs": ("logs:logs", "Print the logs of a run or of one of its steps."),
    "rerun": ("rerun:rerun", "Run one step of a run again, on the same inputs."),
    "cancel": ("cancel:cancel", "Stop a run."),
    "pull": ("pull:pull", "Fetch the artifacts of a submitted run."),
    "report": ("report:report", "Make one report over several runs."),
    "board": ("board:board", "Open TensorBoard over the trainings of runs."),
    "export": ("export:export", "Write a backbone of a run for another tool."),
    "explain": ("explain:explain", "Follow a measured number down to the data."),
    "doctor": (
        "doctor:doctor",
        "Check a cluster before anything is spent; collect what a bug report needs.",
    ),
    "data": ("data:app", "List, check and pack data sets."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return the exit code; an error is a message for people on stderr."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    tracebacks = "--traceback" in tokens or bool(os.environ.get("MOCO_TRACEBACK"))
    tokens = [token for token in tokens if token != "--traceback"]  # noqa: S105
    try:
        result = _app(tokens)(
            tokens, exit_on_error=False, print_error=False, result_action="return_value"
        )
    except BrokenPipeError:  # `moco list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except (Exception, KeyboardInterrupt) as error:
        code, words = _describe(error, tokens)
        return _complain(words, code, tracebacks or code == ExitCode.FAILURE)
    return ExitCode.OK if result is None else int(result)


def _describe(error: BaseException, tokens: Sequence[str]) -> tuple[ExitCode, str]:
    """Return the exit code of an error, and what a person has to know of it."""
    if isinstance(error, CycloptsError):
        return ExitCode.USAGE, f"{error} See `moco {_command(tokens)}--help`."
    if isinstance(error, MocoError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED, "interrupted"
    if isinstance(error, OSError):
        known = of_os_error(error, os.environ.get("MOCO_RUNS", "runs"))
        if known:
            return known.exit_code, str(known)
        return ExitCode.FAILURE, f"{error.filename}: {error.strerror or error}"
    return ExitCode.FAILURE, f"a defect: {type(error).__name__}"


def _app(tokens: Sequence[str]) -> App:
    app = App(
        name="moco",
        help=HELP,
        help_epilogue=EPILOGUE,
        help_format="plaintext",
        version=_version,
        default_parameter=Parameter(negative=(), show_default=False),
    )
    for position, (name, (target, words)) in enumerate(COMMANDS.items()):
        # Its own docstring says more, but only the one that is called is imported.
        summary = None if tokens[:1] == [name] else words
        app.command(f"pipelines.cli.{target}", name=name, help=summary, sort_key=position)
    return app


def _version() -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version("moco-transfer")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _command(tokens: Sequence[str]) -> str:
    return f"{tokens[0]} " if tokens and tokens[0] in COMMANDS else ""


def _complain(message: str, code: ExitCode, with_traceback: bool) -> int:
    """Write an error to stderr, without the secrets of this process."""
    from components.core.log import scrub

    if with_traceback:
        sys.stderr.write(scrub(traceback.format_exc()))
    sys.stderr.write(f"moco: {scrub(message)}\n")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
