import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

from components.core import log
from components.core.config import read_config
from components.core.errors import ClusterError, DataError, ExitCode, Interrupted, UsageError
from components.core.main import guarded
from components.core.metrics import tell_platform
from components.core.stage import Invocation, Stage, load_stage
from pipelines.backends.kubeflow.connection import TIMEOUT, Cluster
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.trainjob import MODULE, SEPARATOR, TrainJobConfig
from pipelines.backends.kubeflow.trainjob.follow import JobFollower, TrainJob
from pipelines.backends.kubeflow.trainjob.manifest import job_name, train_job
from pipelines.backends.kubeflow.trainjob.outputs import figures_of, missing_outputs

HELP = f"""Run a stage on several nodes, as a TrainJob of Kubeflow, and follow it to its end.

usage: python -m {MODULE} --config JSON|@FILE -- python -m components.NAME ...

What stands after -- runs in every pod; its outputs and its state are URLs. The config is that of
`TrainJobConfig`. Exit code and log are those of the stage. SIGTERM cancels the TrainJob.
"""
STEP = "moco-transfer/stage"
KEPT_LABELS = ("moco-transfer/", "pipeline/")  # of this pod, for the TrainJob too
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

logger = log.get_logger(MODULE)


@dataclass(frozen=True)
class Command:
    """The follower's command line, read."""

    config: TrainJobConfig
    stage: Stage[Any]
    invocation: Invocation[Any]
    command: list[str]
    executor_input: str | None


def main(arguments: Sequence[str]) -> int:
    """Follow one stage on several nodes; return the exit code."""
    log.configure()
    if not arguments or {"-h", "--help"} & {*arguments[:1]}:
        sys.stdout.write(HELP)
        return ExitCode.OK if arguments else ExitCode.USAGE
    code: int = ExitCode.OK

    def work() -> None:
        nonlocal code
        signal.signal(signal.SIGTERM, _interrupt)
        code = run(read_command(arguments))

    return guarded(work) or code


def read_command(arguments: Sequence[str]) -> Command:
    """Read the command line, the stage's part included.

    Raises:
        UsageError, ConfigError: naming what is wrong.
    """
    if SEPARATOR not in arguments:
        raise UsageError(f"the stage's command line is missing: ... {SEPARATOR} python -m MODULE")
    split = list(arguments).index(SEPARATOR)
    options, command = list(arguments[:split]), list(arguments[split + 1 :])
    given = dict(zip(options[::2], options[1::2], strict=False))
    unknown = sorted({*given} - {"--config", "--executor-input"})
    if unknown or len(options) % 2 or "--config" not in given:
        wrong = unknown or options[-1:] if unknown or len(options) % 2 else ["--config is missing"]
        raise UsageError(f"{', '.join(wrong)}: expected --config JSON [--executor-input JSON]")
    if command[1:2] != ["-m"] or not command[2:3]:
        raise UsageError(f"after {SEPARATOR}: expected python -m components.NAME ...")
    stage = load_stage(command[2].removeprefix("components."))
    return Command(
        config=read_config(TrainJobConfig, given["--config"]),
        stage=stage,
        invocation=stage.parse(command[3:]),
        command=command,
        executor_input=given.get("--executor-input"),
    )


def run(given: Command) -> int:
    """Run the stage's command as a TrainJob; return its exit code.

    Raises:
        ClusterError: if the TrainJob cannot be started or followed.
        DataError: if it ended well without its artifacts.
        Interrupted: on SIGTERM, after the TrainJob has been deleted.
    """
    outputs = given.invocation.outputs
    if missing_outputs(given.stage, outputs):
        ending = _follow(given)
        if ending:
            return ending
        missing = missing_outputs(given.stage, outputs)
        if missing:
            raise DataError("the TrainJob ended well, but:\n  " + "\n  ".join(missing))
    else:
        logger.info("an earlier pod of this step has made the artifacts already", **outputs)
    if given.executor_input:
        tell_platform(given.executor_input, figures_of(given.stage, outputs))
    return ExitCode.OK


def _follow(given: Command) -> int:
    cluster = Cluster(ClusterOptions(namespace=_namespace()))
    own_labels, owner = _own_pod(cluster)
    step = own_labels.get(STEP, given.stage.name)
    job = TrainJob(cluster, job_name(step, given.invocation.outputs))
    labels = {key: value for key, value in own_labels.items() if key.startswith(KEPT_LABELS)}
    job.start(train_job(given.config, given.command, name=job.name, labels=labels, owner=owner))
    try:
        ending = JobFollower(job, given.config.nodes).follow()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        logger.info("deleting the TrainJob", name=job.name)
        try:
            job.delete()
        except ClusterError as error:  # it goes with this pod at the latest
            logger.warning("the TrainJob was not deleted", why=str(error))
    if ending.code:
        logger.error(ending.words, exit_code=ending.code)
    return ending.code


def _namespace() -> str:
    """Return the namespace of this pod.

    Raises:
        UsageError: outside a pod, where nothing says which.
    """
    if NAMESPACE.exists():
        return NAMESPACE.read_text("utf-8").strip()
    if given := os.environ.get("NAMESPACE"):
        return given
    raise UsageError("this is no pod: set NAMESPACE to the one that the TrainJob goes to")


def _own_pod(cluster: Cluster) -> tuple[Mapping[str, str], Mapping[str, str] | None]:
    """Return this pod's labels, and the reference with which a TrainJob goes when it goes.

    Outside a pod there are neither.
    """
    if not NAMESPACE.exists():
        return {}, None
    name = os.environ.get("KFP_POD_NAME") or os.environ["HOSTNAME"]
    namespace = cluster.options.namespace
    with cluster.asking(f"read this pod, {namespace}/{name}"):
        metadata = cluster.core.read_namespaced_pod(
            name, namespace, _request_timeout=TIMEOUT
        ).metadata
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": metadata.uid}
    return metadata.labels or {}, owner


def _interrupt(number: int, _: Any) -> Never:
    raise Interrupted(
        f"stopped by {signal.Signals(number).name}; the same command continues from the last "
        "checkpoint"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
