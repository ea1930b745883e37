"""The chart and its objects as linters and schemas see them."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.chart import CHART, KUBERNETES, NAMESPACE, VARIANTS, Document, of_kind, rendered
from tests.servers.go import NoServerError
from tests.servers.helm import Helm
from tests.servers.trainer import TRAINER, module_folder

VERSIONS = ("1.29", KUBERNETES)  # from the oldest that the chart takes
CUSTOM = ("TrainingRuntime", "LocalQueue")
RUNTIMES = "trainer.kubeflow.org_trainingruntimes.yaml"
CHECKOV_SECONDS = 500

# Rules of checkov's that the chart breaks, and why.
ACCEPTED = {
    ("CKV_K8S_8", "Pod"): "a pod that runs to its end needs no probes",
    ("CKV_K8S_9", "Pod"): "a pod that runs to its end needs no probes",
    ("CKV_K8S_11", "StatefulSet"): "a limit of CPUs would only slow the store down",
    **{
        (rule, kind): reason
        for kind in ("Job", "Pod", "StatefulSet")
        for rule, reason in {
            "CKV_K8S_15": "an image by digest need not be pulled again",
            "CKV_K8S_35": "S3 clients and servers take their keys from variables",
            "CKV_K8S_40": "the user of the images is 1000",
            "CKV_K8S_43": "the user chooses the images; the options ask for digests",
        }.items()
    },
}

every_variant = pytest.mark.parametrize("variant", VARIANTS)


@every_variant
def test_helm_finds_nothing_to_complain_about(helm: Helm, variant: str) -> None:
    helm("lint", "--strict", "--kube-version", KUBERNETES, CHART, *VARIANTS[variant])


def linter(name: str) -> str:
    """Return the path of a program that looks at objects."""
    path = shutil.which(name, path=os.environ.get("MOCO_TEST_LINTERS"))
    return path or pytest.skip(f"no {name}: neither MOCO_TEST_LINTERS nor the PATH has it")


def test_every_object_fits_kubernetes_schema(helm: Helm, tmp_path: Path) -> None:
    validate = [linter("kubernetes-validate"), "--strict"]
    for version in VERSIONS:
        validate += ["-k", version]
    for variant, arguments in VARIANTS.items():
        documents = [one for one in rendered(helm, *arguments) if one["kind"] not in CUSTOM]
        (tmp_path / f"{variant}.yaml").write_text(yaml.safe_dump_all(documents), "utf-8")

    files = sorted(tmp_path.iterdir())
    done = subprocess.run([*validate, *files], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("apiVersion: v1\nkind: Pod\nmetadata: {nam: wrong}\n")
    assert subprocess.run([*validate, wrong], capture_output=True, check=False).returncode


def test_the_runtime_fits_the_schema_of_trainer(helm: Helm) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    try:
        folder = module_folder(TRAINER.module) / TRAINER.definitions
    except NoServerError as reason:
        pytest.skip(str(reason))
    definition = yaml.safe_load((folder / RUNTIMES).read_text("utf-8"))
    (version,) = definition["spec"]["versions"]
    schema = _strict(version["schema"]["openAPIV3Schema"])
    (runtime,) = of_kind(
        rendered(helm, *VARIANTS["trainer"], *VARIANTS["gpus"]), "TrainingRuntime"
    ).values()

    assert runtime["apiVersion"] == f"{definition['spec']['group']}/{version['name']}"
    jsonschema.Draft7Validator(schema).validate(runtime)
    runtime["spec"]["template"]["spec"]["restarts"] = 3
    with pytest.raises(jsonschema.ValidationError, match="restarts"):
        jsonschema.Draft7Validator(schema).validate(runtime)


@pytest.mark.timeout(CHECKOV_SECONDS + 100)
def test_checkov_finds_only_what_is_accepted(helm: Helm, tmp_path: Path) -> None:
    checkov = linter("checkov")
    for variant, arguments in VARIANTS.items():
        documents = rendered(helm, *arguments)
        for document in documents:  # Helm gives them this namespace when it installs them
            document["metadata"]["namespace"] = NAMESPACE
        (tmp_path / f"{variant}.yaml").write_text(yaml.safe_dump_all(documents), "utf-8")

    report = _checkov(checkov, tmp_path)

    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["resource_count"] > len(VARIANTS)
    failed = report["results"]["failed_checks"]
    assert {(one["check_id"], one["resource"].partition(".")[0]) for one in failed} == set(ACCEPTED)


def _checkov(checkov: str, folder: Path) -> Document:
    done = subprocess.run(
        [checkov, "--framework", "kubernetes", "-d", folder, "--skip-download", "-o", "json"],
        capture_output=True,
        text=True,
        timeout=CHECKOV_SECONDS,
        check=False,
    )
    assert done.stdout, done.stderr
    report: Document = json.loads(done.stdout)
    return report


def _strict(schema: Any) -> Any:
    """Refuse fields that a schema does not name, as the API server would drop them."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    strict = {name: _strict(rule) for name, rule in schema.items()}
    if (
        schema.get("type") == "object"
        and schema.get("properties")
        and not schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        strict["additionalProperties"] = False
    return strict
