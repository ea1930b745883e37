"""`moco doctor`: what keeps a cluster from running a recipe, before anything is spent."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from components.core.errors import DataError, ExitCode, MocoError, UsageError
from components.core.log import scrub
from pipelines.backends import backend_of, open_backend
from pipelines.backends.base import POD_SECONDS, Backend, Checkup, Settings
from pipelines.backends.findings import Finding
from pipelines.cli.bundle import Bundle, Events, reserved
from pipelines.cli.options import (
    BackendName,
    ClusterValues,
    Json,
    RecipeName,
    RecipeOptions,
    mounted,
    pairs,
)
from pipelines.cli.output import print_json, say
from pipelines.cli.redaction import Redactor
from pipelines.plan import Plan
from pipelines.runs.find import find_run
from pipelines.runs.folder import Run, runs_folder
from pipelines.runs.logs import Event
from pipelines.words import number, size

INDENT = " " * 4
WAY = ("packages", "cluster", "credentials")  # checks without which nothing can be asked
MARKS = {"ok": "✓", "warning": "!", "failed": "✗", "skipped": "-"}


def doctor(
    recipe: RecipeName | None = None,
    /,
    *,
    options: RecipeOptions = RecipeOptions(),  # noqa: B008 - frozen
    data: Annotated[
        tuple[str, ...],
        Parameter(help="NAME=CLAIM: the volume claim that holds a data set. Repeatable."),
    ] = (),
    cluster: ClusterValues = (),
    parameter: Annotated[
        tuple[str, ...],
        Parameter(
            help="NAME=VALUE of the compiled pipeline, as `moco submit` gets it. Repeatable."
        ),
    ] = (),
    pods: Annotated[
        bool,
        Parameter(
            negative="--no-pods", help="Start short pods to look from inside; on by default."
        ),
    ] = True,
    wait: Annotated[
        float,
        Parameter(
            help="Seconds that each of these pods may take; a large data set takes longer.",
            show_default=True,
        ),
    ] = POD_SECONDS,
    bundle: Annotated[
        Path | None,
        Parameter(
            help="FILE.zip: write what a report of a fault needs, without credentials; exits with "
            "0 if that is written, whatever was found."
        ),
    ] = None,
    run: Annotated[
        str | None,
        Parameter(
            help="A run of `moco status` that goes into the bundle: its record, states and the "
            "ends of its logs. For one of this machine no cluster is asked, unless RECIPE or "
            "--cluster is given."
        ),
    ] = None,
    backend: BackendName = "kubeflow",
    json: Json = False,
) -> int:
    """Check a cluster, and what a recipe needs of it; collect what a report of a fault needs.

    Nothing is kept: a small file below the pipeline root and short pods are deleted again.

    Exits with 0 if nothing failed, else with the code of the first failure: 64 package, image or
    parameter, 65 data set, 68 cluster, 69 store, 77 not allowed, 78 options.
    """
    if wait <= 0:
        raise UsageError(f"--wait {wait:g}: expected seconds, like --wait 600")
    if run and not bundle:
        raise UsageError("--run names what goes into a bundle: give --bundle FILE.zip, too")
    named = find_run(run, runs_folder()) if run else None
    asked = open_backend(backend, Settings(cluster))
    given = options.data(pairs("--data", data, "NAME=CLAIM"))
    plan = options.plan(recipe, given) if recipe else None
    claims = mounted(plan, given) if plan else given
    checkup = Checkup(
        plan,
        data=claims,
        parameters=pairs("--parameter", parameter, "NAME=VALUE"),
        run=named,
        pod_seconds=wait if pods else None,
    )
    findings = asked.doctor(checkup)
    if bundle is None:
        seen = _shown(findings, json)
        code = next((finding.code for finding in seen if finding.state == "failed"), ExitCode.OK)
        if json:
            print_json({"exit_code": code, "findings": [_facts(finding) for finding in seen]})
        return code
    with reserved(bundle) as file:
        # What is wrong with a run of another backend, one of this machine above all, is not here.
        wanted = named is None or _backend(named) == backend or bool(recipe or cluster)
        seen = _shown(findings, json) if wanted else []
        collected = _collected(asked, seen, plan, named)
        if not wanted:
            collected.lacks(f"{backend}: it was not asked, as the run is not of it")
        collected.write(file)
    if json:
        facts = [collected.redactor.value(_facts(finding)) for finding in seen]
        print_json({"exit_code": ExitCode.OK, "findings": facts, "bundle": str(bundle)})
        return ExitCode.OK
    for words in collected.lacking:
        say(f"! not in it: {words.splitlines()[0]}")
    files = number(len(collected.files) + 1, "file")
    say(f"Wrote {bundle}: {files}, {size(bundle.stat().st_size)}, credentials blanked.")
    say("Names of people, hosts and folders are in it: look through it before you give it away.")
    return ExitCode.OK


def _shown(findings: Iterable[Finding], json: bool) -> list[Finding]:
    """Perform the checks, showing each finding to people at once."""
    seen = []
    for finding in findings:
        seen.append(finding)
        if not json:
            _show(finding)
    if not json:
        counts: Counter[str] = Counter(finding.state for finding in seen)
        say(", ".join(f"{counts[state]} {state}" for state in MARKS if counts[state]))
    return seen


def _backend(run: Run) -> str | None:
    """Name the backend of a run; a damaged record does not tell."""
    with suppress(DataError):
        return run.record.backend
    return None


def _collected(
    backend: Backend, findings: Sequence[Finding], plan: Plan | None, run: Run | None
) -> Bundle:
    """Collect what is known of the machine, the backend, the plan and the run."""
    bundle = Bundle(Redactor(backend.secrets()))
    bundle.add_machine()
    if findings:
        bundle.add("doctor.json", [_facts(finding) for finding in findings])
        bundle.add("cluster.json", backend.facts())
    for finding in findings:
        if finding.state == "failed" and finding.check in WAY:
            bundle.lacks(f"{finding.check}: {finding.words}")
    if plan:
        bundle.add_plan(plan)
    if run:
        bundle.add_run(run, _events(run, backend.settings, bundle))
    return bundle


def _events(run: Run, settings: Settings, bundle: Bundle) -> Events | None:
    """Hear of a run once more, and return what tells the logs of its steps, if that is known."""
    if _backend(run) is None:
        return None
    try:
        backend = backend_of(run, settings)
        backend.refresh(run)
        logs = dict(backend.logs(run, run.record.steps))
    except MocoError as error:
        bundle.lacks(
            f"run {run.id}: its states are those that were last heard of, and its logs "
            f"are not here: {error}"
        )
        return lambda step: []

    def said(step: str) -> Sequence[Event]:
        attempts = logs[step].attempts if step in logs else ()
        return attempts[-1].read() if attempts else []

    return said


def _show(finding: Finding) -> None:
    first, *more = scrub(finding.words).splitlines() or [""]
    say(f"{MARKS[finding.state]} {finding.check}: {first}")
    for line in more:
        say(f"{INDENT}{line}")
    for way in finding.way_out:
        say(f"{INDENT}→ {scrub(way)}")


def _facts(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "state": finding.state,
        "words": scrub(finding.words),
        "way_out": [scrub(way) for way in finding.way_out],
        "code": finding.code,
    }
