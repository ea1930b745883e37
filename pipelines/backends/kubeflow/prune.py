"""Leaves steps out of a compiled pipeline."""

from collections.abc import Collection
from typing import Any

import yaml


def prune(pipeline: str, tasks: Collection[str]) -> str:
    """Return a compiled pipeline without some tasks, and without what only these use.

    Args:
        pipeline: As kfp wrote it.
        tasks: Their names; no other task reads of them.
    """
    specification, *rest = yaml.safe_load_all(pipeline)
    dag = specification["root"]["dag"]["tasks"]
    for task in tasks:
        del dag[task]
    components = specification["components"]
    used = {task["componentRef"]["name"] for task in dag.values()}
    labels = {components[name]["executorLabel"] for name in used}
    _keep(components, used)
    _keep(specification["deploymentSpec"]["executors"], labels)
    for document in rest:
        for platform in document["platforms"].values():
            _keep(platform["deploymentSpec"]["executors"], labels)
    return yaml.safe_dump_all([specification, *rest], sort_keys=True)


def _keep(entries: dict[str, Any], names: Collection[str]) -> None:
    for name in entries.keys() - {*names}:
        del entries[name]
