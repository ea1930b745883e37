"""Nodes, as Kubernetes describes them."""

from decimal import Decimal
from typing import Any

import pytest

from pipelines.backends.kubeflow.doctor.capacity import Need, Node, _node
from pipelines.backends.kubeflow.options import ClusterOptions, Toleration


@pytest.mark.parametrize(
    ("changes", "options", "closed"),
    [
        ({}, {}, ""),
        ({"ready": "False"}, {}, "it is not ready"),
        ({"labels": {"pool": "cpu"}}, {"node_selector": {"pool": "gpu"}}, "has no label pool=gpu"),
        ({"taint": "NoSchedule"}, {}, "it has the taint gpu=yes:NoSchedule"),
        ({"taint": "PreferNoSchedule"}, {}, ""),
        ({"taint": "NoExecute"}, {"tolerations": (Toleration(key="gpu"),)}, ""),
        ({"taint": "NoSchedule"}, {"tolerations": (Toleration(),)}, ""),
        (
            {"taint": "NoSchedule"},
            {"tolerations": (Toleration(key="gpu", operator="Equal", value="no"),)},
            "taint",
        ),
        (
            {"taint": "NoExecute"},
            {"tolerations": (Toleration(key="gpu", effect="NoSchedule"),)},
            "taint",
        ),
    ],
)
def test_nodes_that_pods_may_not_run_on_are_left_out(
    changes: dict[str, Any], options: dict[str, Any], closed: str
) -> None:
    from kubernetes import client

    taint = changes.get("taint")
    node = client.V1Node(
        metadata=client.V1ObjectMeta(name="n", labels=changes.get("labels")),
        spec=client.V1NodeSpec(
            taints=[client.V1Taint(key="gpu", value="yes", effect=taint)] if taint else None
        ),
        status=client.V1NodeStatus(
            allocatable={"cpu": "7500m", "memory": "16Gi"},
            conditions=[client.V1NodeCondition(type="Ready", status=changes.get("ready", "True"))],
        ),
    )

    found = _node(node, ClusterOptions(**options))

    assert closed in found.closed
    assert bool(closed) == bool(found.closed)
    assert found.amounts == {"cpu": Decimal("7.5"), "memory": Decimal(16 << 30)}


def test_a_node_lacks_what_it_has_too_little_of() -> None:
    node = Node("n", {"cpu": Decimal(4), "memory": Decimal(8)})

    assert node.lacks(Need("x", {"cpu": Decimal(4), "memory": Decimal(9)}, {})) == {"memory": 8}
    assert node.lacks(Need("x", {"gpu": Decimal(1)}, {})) == {"gpu": 0}
