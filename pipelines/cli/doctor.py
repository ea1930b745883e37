"""`moco doctor`: what keeps a cluster from running a recipe, before anything is spent."""

from collections import Counter
from typing import Annotated, Any

from cyclopts import Parameter

from components.core.errors import ExitCode, UsageError
from components.core.log import scrub
from pipelines.cli.options import ClusterValues, Json, RecipeName, RecipeOptions, pairs
from pipelines.cli.output import print_json, say
from pipelines.cluster.doctor import POD_SECONDS, Finding, Site, examine

INDENT = " " * 4
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
    json: Json = False,
) -> int:
    """Check a cluster, and what a recipe needs of it.

    Nothing is kept: a small file below the pipeline root and short pods are deleted again.

    Exits with 0 if nothing failed, else with the code of the first failure: 64 package, image or
    parameter, 65 data set, 68 cluster, 69 store, 77 not allowed, 78 options.
    """
    from pipelines.cluster.connection import Cluster, cluster_options

    if wait <= 0:
        raise UsageError(f"--wait {wait:g}: expected seconds, like --wait 600")
    site = Site(
        cluster=Cluster(cluster_options(cluster, ask=False)),
        plan=options.plan(recipe) if recipe else None,
        parameters=pairs("--parameter", parameter, "NAME=VALUE"),
        given=cluster,
        claims=pairs("--data", data, "NAME=CLAIM"),
        pods=pods,
        pod_seconds=wait,
    )
    findings = []
    for finding in examine(site):
        findings.append(finding)
        if not json:
            _show(finding)
    code = next((one.code for one in findings if one.state == "failed"), ExitCode.OK)
    if json:
        print_json({"exit_code": code, "findings": [_facts(one) for one in findings]})
    else:
        counts: Counter[str] = Counter(finding.state for finding in findings)
        say(", ".join(f"{counts[state]} {state}" for state in MARKS if counts[state]))
    return code


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
