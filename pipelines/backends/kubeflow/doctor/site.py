"""What the checks look at: a cluster, and the plan that is to run there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.core.config import nearest
from components.core.errors import ExitCode, UsageError
from pipelines.backends.base import POD_SECONDS
from pipelines.backends.kubeflow.connection import TIMEOUT, Cluster, cluster_options
from pipelines.backends.kubeflow.doctor.findings import MissingError, RefusedError, UnknownUserError
from pipelines.backends.kubeflow.images import default_image, stages
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.parameters import image_parameter, pipeline_parameters
from pipelines.plan import Plan

IMAGE = "torch"  # that every recipe needs


@dataclass
class Site:
    """A cluster and what is to run on it, shared by all checks.

    Attributes:
        cluster: Asked through its options as far as they are known.
        plan: What is to run; None if only the cluster is looked at.
        parameters: Values of the pipeline's parameters, in place of their defaults.
        given: Values of `--cluster`, if the chart's options are still to be read.
        claims: Persistent volume claims by data set, over those of the options.
        pods: Whether pods may be started to look from inside.
        pod_seconds: How long each of them may take.
        user: Who asks, when the cluster has said so.
        multi_user: Whether each user's runs have a namespace, when the server has said so.
    """

    cluster: Cluster
    plan: Plan | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    given: Sequence[str] | None = None
    claims: Mapping[str, str] = field(default_factory=dict)
    pods: bool = False
    pod_seconds: float = POD_SECONDS
    user: str = ""
    multi_user: bool | None = None

    @property
    def options(self) -> ClusterOptions:
        """The options, after `settle` with what the chart says."""
        return self.cluster.options

    @property
    def namespace(self) -> str:
        """Namespace of the runs."""
        return self.options.namespace

    def settle(self) -> None:
        """Complete the options by those that the chart wrote.

        Raises:
            ConfigError: if the chart's are not options of this version.
            ClusterError: if the cluster does not answer.
        """
        options = self.options if self.given is None else cluster_options(self.given)
        claims = {**options.claims, **self.claims}
        self.cluster = Cluster(options.model_copy(update={"claims": claims}))

    def values(self) -> dict[str, str]:
        """Return the values of the compiled pipeline's parameters; none without a plan.

        Raises:
            UsageError: for a parameter that it does not have, naming the nearest.
        """
        if self.plan is None:
            return {}
        defaults = {
            parameter.name: parameter.default
            for parameter in pipeline_parameters(self.plan, self.options)
        }
        for name in self.parameters:
            if name not in defaults:
                raise UsageError(
                    f"--parameter {name}: {self.plan.name} has no such parameter"
                    f"{nearest(name, defaults)}"
                )
        return {**defaults, **self.parameters}

    def images(self) -> dict[str, str]:
        """Return the references of the images in question, by name."""
        if self.plan is None:
            return {IMAGE: self.options.images.get(IMAGE) or default_image(IMAGE)}
        values = self.values()
        names = sorted({stage.image for stage in stages(self.plan)})
        return {name: values[image_parameter(name)] for name in names}

    def ask(self, what: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a method of a Kubernetes client, and return its answer.

        Args:
            what: What the call does, for people: `read the secret X`.
            call: The method.
            arguments: Its own.
            named: Its own.

        Raises:
            MissingError: if there is no such object.
            RefusedError: if this user may not.
            UnknownUserError: if the credentials are not accepted.
            ClusterError: if the cluster does not answer, or refuses for another reason.
        """
        from kubernetes.client import ApiException

        with self.cluster.asking(what):
            try:
                return call(*arguments, _request_timeout=TIMEOUT, **named)
            except ApiException as error:
                if error.status == 401:
                    raise UnknownUserError(
                        f"cannot {what}: the credentials are not accepted (401); have they "
                        "expired?",
                        "log in to the cluster anew, then: kubectl auth whoami",
                    ) from None
                if error.status == 404:
                    raise MissingError(f"cannot {what}: it does not exist") from None
                if error.status == 403:
                    raise self._refused(what) from None
                raise

    def _refused(self, what: str) -> RefusedError:
        user = self.user or "USER"
        return RefusedError(
            f"{self.user or 'this user'} may not {what}",
            f"ask an administrator: {grant(user, self.namespace)}",
            code=ExitCode.NO_PERMISSION,
        )


def grant(user: str, namespace: str, role: str = "edit") -> str:
    """Write the command that gives a user a cluster role in a namespace."""
    subject = f"--user={user}"
    if user.startswith("system:serviceaccount:"):
        subject = f"--serviceaccount={user.removeprefix('system:serviceaccount:')}"
    return (
        f"kubectl create rolebinding moco-{role} --clusterrole={role} {subject} "
        f"--namespace={namespace}"
    )
