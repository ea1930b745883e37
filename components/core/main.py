"""Runs a stage from its command line: reads, verifies, works, writes manifests last."""

import importlib
import inspect
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Never, TypeVar

from pydantic import JsonValue

from components.core import log
from components.core.config import C, not_installed
from components.core.content import describe
from components.core.errors import (
    ConfigError,
    DataError,
    ExitCode,
    Interrupted,
    MocoError,
    NotWritableError,
    of_os_error,
)
from components.core.manifest import (
    MANIFEST,
    UNFINISHED,
    Lineage,
    Manifest,
    file_sha256,
    hash_folder,
    verify,
    weights_in,
    write_manifest,
)
from components.core.metrics import METRICS, read_metrics, tell_platform
from components.core.ports import Ports
from components.core.stage import Invocation, Job, Mount, Port, Source, Stage, load_stage
from components.core.store import local_path
from components.core.version import code_of, image

T = TypeVar("T")


def main(module: str, arguments: Sequence[str] | None = None) -> Never:
    """Run the stage declared in a module with the process's arguments, and exit.

    Importing the module again by name keeps one identity of its config type,
    whatever `python -m` calls it.
    """
    log.configure()
    # Else pydantic takes the source of the module below for that of __main__, the same file,
    # and its fields lose the descriptions that the help shows.
    inspect.modulesbyfile.pop(str(sys.modules["__main__"].__file__), None)
    stage = load_stage(module.removeprefix("components."))
    sys.exit(run(stage, sys.argv[1:] if arguments is None else arguments))


def run(stage: Stage[Any], arguments: Sequence[str]) -> int:
    """Run a stage; return the exit code, the message of an error being printed."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(stage.help())  # noqa: T201 - the help is the output
        return ExitCode.OK if arguments else ExitCode.USAGE
    return guarded(lambda: execute(stage, stage.parse(arguments)))


def guarded(work: Callable[[], None]) -> int:
    """Do some work; turn what it raises into a message on stderr and an exit code."""
    try:
        work()
    except MocoError as error:
        return _report(error)
    except KeyboardInterrupt:
        return _report(Interrupted("interrupted; run the same command to continue"))
    except OSError as error:
        known = of_os_error(error)
        if known is None:
            return _defect()
        return _report(known)
    except Exception:
        return _defect()
    return ExitCode.OK


def execute(stage: Stage[C], invocation: Invocation[C]) -> None:
    """Verify the inputs, prepare the outputs, do the work, write the manifests, upload."""
    if lacking := not_installed(invocation.config):
        raise ConfigError(
            "\n".join(f"{name} is needed and not installed: {way}" for name, way in lacking.items())
        )
    signal.signal(signal.SIGTERM, _interrupt)  # a training loop puts a gentler one in its place
    sources = _sources(stage, invocation.inputs)
    state = invocation.state or _beside(next(iter(invocation.outputs.values())))
    views = {name for name, port in stage.outputs.items() if port.kind == "HTML"}
    with Ports(invocation.outputs, views) as ports:
        artifacts = [source for _, source in sources.values() if isinstance(source, str)]
        ports.check(artifacts, state if stage.resumable else None)
        paths, manifests, lineages = _verified(sources, ports)
        outputs = {
            name: _prepare(ports.output(name), stage.outputs[name]) for name in invocation.outputs
        }
        job = Job(
            config=invocation.config,
            paths=paths,
            manifests=manifests,
            identity={
                "config": invocation.config.identity(),
                "inputs": {
                    name: lineage.digest for name, lineage in lineages.items() if lineage.digest
                },
                "data": {} if ports.helper or not stage.resumable else _content(lineages, paths),
                "code": code_of(stage, invocation.config).digest,
            },
            outputs=outputs,
            state=state,
        )
        module, _, function = stage.run.partition(":")
        getattr(importlib.import_module(module), function)(job)
        if ports.helper:
            return
        environment = _image_told(invocation.executor_input) or image(*job.config.requires())
        _finish(stage, job, lineages, environment)
        ports.upload()
        if invocation.executor_input:
            tell_platform(invocation.executor_input, _figures(stage, job))


def _beside(output: str) -> str:
    """Name the place of in-flight state: beside an output."""
    return f"{output.rstrip('/') or output}.state"


def _sources(
    stage: Stage[C], inputs: Mapping[str, Source | Mapping[str, Source]]
) -> dict[str, tuple[Port, Source]]:
    """Give every input its port, by `PORT` or `PORT.KEY`."""
    sources: dict[str, tuple[Port, Source]] = {}
    for name, bound in inputs.items():
        port = stage.inputs[name]
        if isinstance(bound, Mapping):
            sources |= {f"{name}.{key}": (port, source) for key, source in bound.items()}
        else:
            sources[name] = (port, bound)
    return sources


def _verified(
    sources: Mapping[str, tuple[Port, Source]], ports: Ports
) -> tuple[dict[str, Path], dict[str, Manifest], dict[str, Lineage]]:
    paths: dict[str, Path] = {}
    manifests: dict[str, Manifest] = {}
    lineages: dict[str, Lineage] = {}
    for name, (port, source) in sources.items():
        mounted = isinstance(source, Mount)
        where = source.path if isinstance(source, Mount) else source
        paths[name] = path = (
            local_path(where) if mounted else ports.input(name, where, sharded=port.any_data)
        )
        if not path.exists():
            raise DataError(f"input {name}: {where} does not exist")
        called = path.name
        if port.foreign and port.kind == "Model" and path.is_dir():
            paths[name] = path = _told_of(where, weights_in, path)
        if mounted:
            lineages[name] = Lineage(origin="mount", name=str(path))
        elif path.is_file():
            if not port.foreign or port.kind == "Dataset":
                raise DataError(f"input {name}: {where} is a file; it must be an artifact's folder")
            size = path.stat().st_size
            lineages[name] = Lineage(
                origin="file", name=called, digest=file_sha256(path), file_count=1, size=size
            )
        elif port.takes_plain(path):
            lineages[name] = Lineage(origin="mount", name=called)
        else:
            manifest = _told_of(where, verify, path)
            if manifest.kind != port.kind:
                raise DataError(
                    f"input {name}: {where} is a {manifest.kind} made by {manifest.stage}; "
                    f"a {port.kind} is needed ({port.description})"
                )
            manifests[name] = manifest
            lineages[name] = manifest.lineage()
    return paths, manifests, lineages


def _content(lineages: Mapping[str, Lineage], paths: Mapping[str, Path]) -> dict[str, JsonValue]:
    """Say what each mounted data set holds, by port; where it is mounted does not matter."""
    mounted = {name: paths[name] for name, lineage in lineages.items() if lineage.origin == "mount"}
    known: dict[Path, JsonValue] = {path: describe(path).to_json() for path in {*mounted.values()}}
    return {name: known[path] for name, path in mounted.items()}


def _told_of(where: str, look: Callable[[Path], T], path: Path) -> T:
    """Look at an input; what is wrong is told of where it came from, not of the scratch."""
    try:
        return look(path)
    except DataError as error:
        raise DataError(str(error).replace(str(path), where)) from None


def _prepare(path: Path, port: Port) -> Path:
    """Make an output ready; what an attempt that did not finish left there is removed."""
    try:
        if port.kind == "HTML":
            path.parent.mkdir(parents=True, exist_ok=True)
            return path
        if (path / UNFINISHED).exists():
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            held = "a finished artifact" if (path / MANIFEST).exists() else "other files"
            raise NotWritableError(
                f"the output {path} already holds {held}; remove it or name another folder"
            )
        (path / UNFINISHED).touch()
    except OSError as error:
        known = of_os_error(error, path)
        raise known or NotWritableError(f"cannot write the output {path}: {error}") from None
    return path


def _image_told(executor_input: str | None) -> str | None:
    """Return the image that Kubeflow Pipelines says this runs in."""
    inputs = json.loads(executor_input or "{}").get("inputs", {})
    told = inputs.get("parameterValues", {}).get("image")
    return told if isinstance(told, str) else None


def _finish(stage: Stage[C], job: Job[C], lineages: dict[str, Lineage], environment: str) -> None:
    config: dict[str, Any] = json.loads(job.config.to_json())
    code = code_of(stage, job.config)
    for name, path in job.outputs.items():
        port = stage.outputs[name]
        if port.kind == "HTML":
            continue
        (path / UNFINISHED).unlink()
        manifest = Manifest(
            stage=stage.name,
            port=name,
            kind=port.kind,
            config=config,
            code=code,
            image=environment,
            facts=job.facts,
            files=hash_folder(path),
            inputs=lineages,
        )
        write_manifest(path, manifest)


def _figures(stage: Stage[C], job: Job[C]) -> dict[str, Mapping[str, float]]:
    """Return the figures of each Metrics output that was written."""
    return {
        name: read_metrics(job.output(name)).values
        for name, port in stage.outputs.items()
        if port.kind == "Metrics" and (job.output(name) / METRICS).exists()
    }


def _interrupt(number: int, _: Any) -> Never:
    raise Interrupted(f"stopped by {signal.Signals(number).name}; run the same command to continue")


def _report(error: MocoError) -> int:
    log.get_logger(__name__).error(log.scrub(str(error)), exit_code=int(error.exit_code))
    if os.environ.get("MOCO_TRACEBACK"):
        sys.stderr.write(log.scrub(traceback.format_exc()))
    return int(error.exit_code)


def _defect() -> int:
    sys.stderr.write(log.scrub(traceback.format_exc()))
    return int(ExitCode.FAILURE)
