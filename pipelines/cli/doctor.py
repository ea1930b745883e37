"""`moco doctor`: what keeps a cluster from running a recipe, before anything is spent."""

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from components.core.errors import DataError, ExitCode, MocoError, UsageError
from components.core.log import names_secret, scrub
from pipelines.backends.cluster import ClusterOptions
from pipelines.bundle import Bundle, Events, reserved
from pipelines.cli.options import ClusterValues, Json, RecipeName, RecipeOptions, pairs
from pipelines.cli.output import print_json, say
from pipelines.cluster.doctor import POD_SECONDS, Finding, Site, examine
from pipelines.find import find_run
from pipelines.logs import Event
from pipelines.redaction import Redactor
from pipelines.runs import ClusterRun, Run, runs_folder
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
    json: Json = False,
) -> int:
    """Check a cluster, and what a recipe needs of it; collect what a report of a fault needs.

    Nothing is kept: a small file below the pipeline root and short pods are deleted again.

    Exits with 0 if nothing failed, else with the code of the first failure: 64 package, image or
    parameter, 65 data set, 68 cluster, 69 store, 77 not allowed, 78 options.
    """
    from pipelines.cluster.connection import Cluster, cluster_options

    if wait <= 0:
        raise UsageError(f"--wait {wait:g}: expected seconds, like --wait 600")
    if run and not bundle:
        raise UsageError("--run names what goes into a bundle: give --bundle FILE.zip, too")
    named = find_run(run, runs_folder()) if run else None
    place = _place(named)
    if place:
        cluster = (f"namespace={place.namespace}", *cluster)
    site = Site(
        cluster=Cluster(cluster_options(cluster, ask=False)),
        plan=options.plan(recipe) if recipe else None,
        parameters=pairs("--parameter", parameter, "NAME=VALUE"),
        given=cluster,
        claims=pairs("--data", data, "NAME=CLAIM"),
        pods=pods,
        pod_seconds=wait,
    )
    if bundle is None:
        findings = _examined(site, json)
        code = next((one.code for one in findings if one.state == "failed"), ExitCode.OK)
        if json:
            print_json({"exit_code": code, "findings": [_facts(one) for one in findings]})
        return code
    with reserved(bundle) as file:
        asked = named is None or place is not None or bool(recipe or cluster)
        findings = _examined(site, json) if asked else []
        collected = _collected(site, findings, named, place)
        if not asked:
            collected.lacks("the cluster: it was not asked, as the run is of this machine")
        collected.write(file)
    if json:
        facts = [collected.redactor.value(_facts(one)) for one in findings]
        print_json({"exit_code": ExitCode.OK, "findings": facts, "bundle": str(bundle)})
        return ExitCode.OK
    for words in collected.lacking:
        say(f"! not in it: {words.splitlines()[0]}")
    files = number(len(collected.files) + 1, "file")
    say(f"Wrote {bundle}: {files}, {size(bundle.stat().st_size)}, credentials blanked.")
    say("Names of people, hosts and folders are in it: look through it before you give it away.")
    return ExitCode.OK


def _examined(site: Site, json: bool) -> list[Finding]:
    """Perform the checks, showing each finding to people at once."""
    findings = []
    for finding in examine(site):
        findings.append(finding)
        if not json:
            _show(finding)
    if not json:
        counts: Counter[str] = Counter(finding.state for finding in findings)
        say(", ".join(f"{counts[state]} {state}" for state in MARKS if counts[state]))
    return findings


def _place(run: Run | None) -> ClusterRun | None:
    """Say where a run was submitted to; a damaged record does not tell."""
    with suppress(DataError):
        return run.record.cluster if run else None
    return None


def _collected(
    site: Site, findings: Sequence[Finding], run: Run | None, place: ClusterRun | None
) -> Bundle:
    """Collect what is known of the machine, the cluster, the plan and the run."""
    bundle = Bundle(Redactor(_secrets(site, findings)))
    bundle.add_machine()
    if findings:
        bundle.add("doctor.json", [_facts(one) for one in findings])
        bundle.add("cluster.json", site.options.model_dump(mode="json"))
    for one in findings:
        if one.state == "failed" and one.check in WAY:
            bundle.lacks(f"{one.check}: {one.words}")
    if site.plan:
        bundle.add_plan(site.plan)
    if run:
        bundle.add_run(run, _events(site, run, place, bundle) if place else None)
    return bundle


def _secrets(site: Site, findings: Sequence[Finding]) -> list[str]:
    """Return the store's credentials, and what somebody may have given in place of their name."""
    stock, options = ClusterOptions(), site.options
    given = [
        str(getattr(options, name))
        for name in ClusterOptions.model_fields
        if names_secret(name) and getattr(options, name) != getattr(stock, name)
    ]
    if any((one.check, one.state) == ("secret", "ok") for one in findings):
        with suppress(MocoError):
            given += site.cluster.store_credentials().values()
    return given


def _events(site: Site, run: Run, place: ClusterRun, bundle: Bundle) -> Events:
    """Hear of a submitted run once more, and return what tells the logs of its steps."""
    from pipelines.cluster.look import refresh
    from pipelines.cluster.podlogs import attempts, pods_of_run, pods_of_step

    try:
        refresh(run, site.cluster)
        pods = pods_of_run(site.cluster, place)
    except MocoError as error:
        words = str(error)
        bundle.lacks(
            f"run {run.id}: its states are those that were last heard of, and its logs "
            f"are not here: {words}"
        )
        return lambda step: []

    def said(step: str) -> list[Event]:
        if not (run.status(step).attempt or pods_of_step(pods, step)):
            return []
        left = attempts(run, step, site.cluster, pods)
        return left[-1].read() if left else []

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
