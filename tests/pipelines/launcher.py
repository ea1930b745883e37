"""Runs a compiled pipeline as Kubeflow's driver and launcher do, with a process for each pod.

What is imitated: topological order, the executor input, the placeholders and how
they are replaced, folders that exist and folders that do not, copies of the
inputs, uploads of the outputs file by file, mounts, secrets as variables.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from components.core.store import open_store
from pipelines.backends.local.forkserver import ForkServer
from pipelines.backends.local.process import ForkedProcess
from tests.pipelines.tracing import traced

ROOT = Path(__file__).parents[2]

Document = dict[str, Any]


class TaskFailed(Exception):  # noqa: N818 - the name of the fact
    """A task's command exited with an error, or did not end in time."""


@dataclass(frozen=True)
class Pod:
    """A task as its container sees it, every placeholder replaced.

    Attributes:
        task: Name in the compiled file.
        folder: Stands for the pod's file system.
        image: Reference of the image.
        argv: Command and arguments.
        environment: Variables of the container, those from secrets too.
        executor_input: What `{{$}}` was replaced by.
        platform: The task's part of the Kubernetes platform spec.
    """

    task: str
    folder: Path
    image: str
    argv: list[str]
    environment: dict[str, str]
    executor_input: Document
    platform: Document

    def output_uri(self, port: str) -> str:
        """Return the URI of an output."""
        uri: str = self.executor_input["outputs"]["artifacts"][port]["artifacts"][0]["uri"]
        return uri


@dataclass
class Launcher:
    """One run of a compiled pipeline.

    Attributes:
        compiled: The file.
        root: Pipeline root: a folder, or `minio://bucket/prefix` where a server is at hand.
        work: Folder for the pods.
        parameters: Pipeline parameters given for this run; the others keep their defaults.
        volumes: Folders by PVC name.
        secrets: Fields by secret name.
        environment: More variables for every process, the store's endpoint for instance.
        server: Forks the processes, in place of starting each; it has imported torch.
        traces: Folder for what of the project each task executes or reads, if `server` forks them.
    """

    compiled: Path
    root: str
    work: Path
    parameters: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, Path] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    server: ForkServer | None = None
    traces: Path | None = None

    def __post_init__(self) -> None:
        self.spec, *rest = yaml.load_all(self.compiled.read_text("utf-8"), yaml.CSafeLoader)
        self.platforms: Document = (
            rest[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if rest else {}
        )
        self.run_id = str(uuid.uuid4())
        self.metadata: dict[str, Document] = {}
        self.ids: dict[str, str] = {}
        definitions = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        unknown = set(self.parameters) - set(definitions)
        assert not unknown, f"the pipeline has no parameters {unknown}"
        defaults = {name: one.get("defaultValue") for name, one in definitions.items()}
        self.values = {**defaults, **self.parameters}

    def tasks(self) -> list[str]:
        """Return the tasks in an order in which they can run."""
        tasks = self.spec["root"]["dag"]["tasks"]
        graph = {
            name: sorted(task.get("dependentTasks", ())) for name, task in sorted(tasks.items())
        }
        return list(TopologicalSorter(graph).static_order())

    def steps(self) -> list[str]:
        """Return the tasks that run a container."""
        return [task for task in self.tasks() if "container" in self._executor(task)]

    def run(self, timeout: float = 600) -> None:
        """Run every task."""
        for task in self.steps():
            self.run_task(task, timeout)

    def run_task(self, task: str, timeout: float = 600) -> Pod:
        """Download the inputs of a task, run its command, upload what it wrote.

        Raises:
            TaskFailed: with the end of what it printed.
        """
        pod = self.pod(task)
        inputs, outputs = pod.executor_input["inputs"], pod.executor_input["outputs"]
        for artifact in _artifacts(inputs):
            _download(artifact["uri"], _local_path(pod.folder, artifact["uri"]))
        for artifact in _artifacts(outputs):
            _local_path(pod.folder, artifact["uri"]).parent.mkdir(parents=True, exist_ok=True)
        python = {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        environment = {**path, **python, **self.environment, **pod.environment}
        code, printed = self._container(pod, environment, timeout)
        if code:
            raise TaskFailed(f"{task} exited with {code}:\n{printed[-4000:]}")
        for artifact in _artifacts(outputs):
            _upload(_local_path(pod.folder, artifact["uri"]), artifact["uri"])
        told = Path(outputs["outputFile"])
        artifacts = json.loads(told.read_text("utf-8"))["artifacts"] if told.exists() else {}
        for one in (one for listed in artifacts.values() for one in listed["artifacts"]):
            self.metadata[one["uri"]] = one["metadata"]
        return pod

    def _container(
        self, pod: Pod, environment: Mapping[str, str], timeout: float
    ) -> tuple[int, str]:
        """Run the pod's command; return its exit code and what it printed."""
        if self.server is not None:
            argv = pod.argv[1:]
            if self.traces is not None:
                argv = traced(argv, self.traces / pod.task)
            log = self.work / f"{pod.task}.log"
            with log.open("wb") as output, contextlib.chdir(pod.folder):
                pid = self.server.fork(argv, environment, [output.fileno()])
            code = ForkedProcess(pid).wait()
            return code, log.read_text("utf-8")
        try:
            done = subprocess.run(
                pod.argv,
                cwd=pod.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            printed = f"{pod.task} did not end within {timeout} s: {error.stdout!r}"
            raise TaskFailed(printed) from None
        return done.returncode, done.stdout

    def pod(self, task: str) -> Pod:
        """Resolve a task: what the driver finds out, and what the launcher replaces."""
        container = self._executor(task)["container"]
        platform = self.platforms.get(self._component(task)["executorLabel"], {})
        folder = self.work / task
        (folder / "tmp").mkdir(parents=True, exist_ok=True)
        executor_input = self._executor_input(task, folder)
        parameters = executor_input["inputs"]["parameterValues"]
        words = {"{{$}}": json.dumps(executor_input), **placeholders(executor_input, folder)}
        mounts = {one["mountPath"]: self._volume(one) for one in platform.get("pvcMount", ())}
        argv = [
            replaced(_in_pod(word, folder, mounts), words)
            for word in (*container.get("command", ()), *container.get("args", ()))
        ]
        variables = {one["name"]: one["value"] for one in container.get("env", ())}
        return Pod(
            task=task,
            folder=folder,
            image=_resolved(container["image"], parameters),
            argv=argv,
            environment={
                **{name: _in_pod(value, folder, {}) for name, value in variables.items()},
                **self._secret_variables(platform),
            },
            executor_input=executor_input,
            platform=platform,
        )

    def imported(self) -> dict[str, str]:
        """Return the URI of every importer."""
        return {
            task: self._parameters(task)["uri"]
            for task in self.tasks()
            if "importer" in self._executor(task)
        }

    def _task(self, name: str) -> Document:
        task: Document = self.spec["root"]["dag"]["tasks"][name]
        return task

    def _component(self, task: str) -> Document:
        component: Document = self.spec["components"][self._task(task)["componentRef"]["name"]]
        return component

    def _executor(self, task: str) -> Document:
        label = self._component(task)["executorLabel"]
        executor: Document = self.spec["deploymentSpec"]["executors"][label]
        return executor

    def _parameters(self, task: str) -> dict[str, str]:
        """Resolve the parameters of a task, a constant that names another one too."""
        given = self._task(task).get("inputs", {}).get("parameters", {})
        values = {
            name: self.values[one["componentInputParameter"]]
            if "componentInputParameter" in one
            else one["runtimeValue"]["constant"]
            for name, one in given.items()
        }
        return {name: _resolved(value, values) for name, value in values.items()}

    def _executor_input(self, task: str, folder: Path) -> Document:
        inputs = {
            name: self._uri(
                one["taskOutputArtifact"]["producerTask"],
                one["taskOutputArtifact"]["outputArtifactKey"],
            )
            for name, one in self._task(task).get("inputs", {}).get("artifacts", {}).items()
        }
        outputs = self._component(task).get("outputDefinitions", {}).get("artifacts", {})
        return {
            "inputs": {
                "parameterValues": self._parameters(task),
                # An input comes without a type, and its name is a number.
                "artifacts": {
                    name: {
                        "artifacts": [
                            {"name": str(i), "uri": uri, "metadata": self.metadata.get(uri, {})}
                        ]
                    }
                    for i, (name, uri) in enumerate(inputs.items(), 1)
                },
            },
            "outputs": {
                "artifacts": {
                    name: {
                        "artifacts": [
                            {
                                "name": name,
                                "type": {"schemaTitle": one["artifactType"]["schemaTitle"]},
                                "uri": self._uri(task, name),
                                "metadata": {},
                            }
                        ]
                    }
                    for name, one in outputs.items()
                },
                "outputFile": str(
                    _local_path(folder, f"{self._task_root(task)}/output_metadata.json")
                ),
            },
        }

    def _uri(self, task: str, port: str) -> str:
        if "importer" in self._executor(task):
            return self._parameters(task)["uri"]
        return f"{self._task_root(task)}/{port}"

    def _task_root(self, task: str) -> str:
        salt = self.ids.setdefault(task, str(uuid.uuid4()))
        return f"{self.root}/{self.spec['pipelineInfo']['name']}/{self.run_id}/{task}/{salt}"

    def _volume(self, mount: Document) -> str:
        claim = self.values[mount["pvcNameParameter"]["componentInputParameter"]]
        return str(self.volumes[claim])

    def _secret_variables(self, platform: Document) -> dict[str, str]:
        return {
            pair["envVar"]: self.secrets[name][pair["secretKey"]]
            for one in platform.get("secretAsEnv", ())
            for name in [self.values[one["secretNameParameter"]["componentInputParameter"]]]
            for pair in one["keyToEnv"]
        }


def restarted(launcher: Launcher, task: str) -> Launcher:
    """Return the run as a pod that is started again finds it: the same URIs, an empty disk."""
    again = dataclasses.replace(launcher, work=launcher.work / f"again-{task}")
    again.run_id, again.ids, again.metadata = launcher.run_id, launcher.ids, launcher.metadata
    return again


def _artifacts(side: Document) -> list[Document]:
    return [one for listed in side["artifacts"].values() for one in listed["artifacts"]]


def _local_path(folder: Path, uri: str) -> Path:
    """`minio://bucket/key` is `/minio/bucket/key` in a pod."""
    scheme, separator, rest = uri.partition("://")
    return folder / scheme / rest if separator else folder / "folder" / uri.lstrip("/")


def placeholders(executor_input: Document, folder: Path) -> dict[str, str]:
    words = {}
    for side in ("inputs", "outputs"):
        for name, listed in executor_input[side]["artifacts"].items():
            uri = listed["artifacts"][0]["uri"]
            words[f"{{{{$.{side}.artifacts['{name}'].uri}}}}"] = uri
            words[f"{{{{$.{side}.artifacts['{name}'].path}}}}"] = str(_local_path(folder, uri))
    for name, value in executor_input["inputs"]["parameterValues"].items():
        words[_parameter(name)] = value
    return words


def replaced(word: str, words: Mapping[str, str]) -> str:
    """Replace the placeholders; those of one that the launcher does not know stay."""
    for placeholder, value in words.items():
        word = word.replace(placeholder, value)
    return word


def _resolved(value: str, parameters: Mapping[str, str]) -> str:
    for name, other in parameters.items():
        if value == _parameter(name):
            return other
    return value


def _parameter(name: str) -> str:
    return f"{{{{$.inputs.parameters['{name}']}}}}"


def _in_pod(value: str, folder: Path, mounts: Mapping[str, str]) -> str:
    """Put the folders of this machine in place of those of the pod."""
    for path, here in {"/tmp": str(folder / "tmp"), **mounts}.items():
        if value == path or value.startswith(f"{path}/"):
            return here + value.removeprefix(path)
    return value


def _download(uri: str, path: Path) -> None:
    """Fetch an artifact; nothing is there afterwards if there is none, as in a pod."""
    parent, _, name = uri.rpartition("/")
    store = open_store(parent)
    entries = store.list(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if [entry.key for entry in entries] == [name]:
        store.get(name, path)
    elif entries:
        store.get_folder(name, path)


def _upload(path: Path, uri: str) -> None:
    """Store an artifact; one that was not written is no error, and empty folders are lost."""
    parent, _, name = uri.rpartition("/")
    if path.is_dir():
        open_store(parent).put_folder(path, name)
    elif path.exists():
        open_store(parent).put(path, name)
