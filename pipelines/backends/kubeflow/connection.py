"""The ways to a cluster: Kubernetes, Kubeflow Pipelines, the store; opened when first used."""

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from components.core.config import apply_settings, read_config
from components.core.errors import ClusterError, ConfigError, UsageError
from components.core.store import Store, open_store
from components.core.store_environment import (
    ACCESS_KEY,
    ENDPOINT,
    REGION,
    SECRET_KEY,
    names_credentials,
    names_endpoint,
    names_region,
)
from pipelines.backends.kubeflow.options import ClusterOptions
from pipelines.backends.kubeflow.pods import Object, sorted_events

CONFIG_MAP, KEY = "moco-transfer", "cluster.json"  # what the chart says of its namespace
OPTIONS_VARIABLE = "MOCO_CLUSTER"
SERVICE = "ml-pipeline:8888"  # Kubeflow Pipelines' API inside the cluster
TOKEN_PATH = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105 - as kfp's own client calls it
TIMEOUT = (5, 60)  # seconds to connect, to answer


class NotAllowedError(ClusterError):
    """The cluster answers, and refuses this user."""


class Cluster:
    """A cluster as its options name it; nothing is asked of it before it is used.

    Raises:
        ClusterError: by every member, when the cluster cannot be reached or refuses.
    """

    def __init__(self, options: ClusterOptions) -> None:
        self.options = options

    @cached_property
    def kubernetes(self) -> Any:
        """The Kubernetes API, as a `kubernetes.client.ApiClient`."""
        from kubernetes import client

        return client.ApiClient(_configured(client.Configuration(), self.options.context))

    @cached_property
    def core(self) -> Any:
        """Pods, secrets, claims, events: a `kubernetes.client.CoreV1Api`."""
        from kubernetes import client

        return client.CoreV1Api(self.kubernetes)

    @cached_property
    def objects(self) -> Any:
        """Objects of custom kinds: a `kubernetes.client.CustomObjectsApi`."""
        from kubernetes import client

        return client.CustomObjectsApi(self.kubernetes)

    @cached_property
    def pipelines(self) -> Any:
        """The Kubeflow Pipelines API, as a `kfp_server_api.ApiClient`."""
        import kfp_server_api as api

        configuration = api.Configuration(host=self.options.server)
        if self.options.server is None:
            _configured(configuration, self.options.context)
            configuration.host = (
                f"{configuration.host}/api/v1/namespaces/{self.options.server_namespace}"
                f"/services/{SERVICE}/proxy"
            )
        elif token := os.environ.get("MOCO_KFP_TOKEN") or _token_of_the_pod():
            configuration.api_key["authorization"] = token
            configuration.api_key_prefix["authorization"] = "Bearer"
        return api.ApiClient(configuration)

    @cached_property
    def runs(self) -> Any:
        """Runs of Kubeflow Pipelines: a `kfp_server_api.RunServiceApi`."""
        import kfp_server_api as api

        return api.RunServiceApi(self.pipelines)

    @property
    def server_name(self) -> str:
        """The pipeline server, for people."""
        return self.options.server or f"service {self.options.server_namespace}/{SERVICE}"

    @contextmanager
    def asking(self, what: str) -> Iterator[None]:
        """Turn what the clients raise into a `ClusterError` that names what was asked for.

        Args:
            what: What the block does: `list the pods of run X`.
        """
        try:
            yield
        except Exception as error:
            translated = self._translated(error, what)
            if translated is None:
                raise
            raise translated from None

    def events(self, namespace: str, name: str) -> list[Object]:
        """List the events of an object, the oldest first.

        None if they cannot be read: they only add words.
        """
        with suppress(ClusterError), self.asking(f"list the events of {name}"):
            answer = self.core.list_namespaced_event(
                namespace,
                field_selector=f"involvedObject.name={name}",
                _request_timeout=TIMEOUT,
                _preload_content=False,
            )
            return sorted_events(json.loads(answer.data)["items"])
        return []

    def store(self, url: str) -> Store:
        """Open the store behind a URL of a run's artifacts.

        The endpoint is `MOCO_S3_ENDPOINT`, as this machine reaches it, else the pods' own;
        credentials are those of the environment, else the namespace's secret.

        Raises:
            StoreError: if a setting is wrong.
        """
        return open_store(url, self._store_environment)

    @cached_property
    def _store_environment(self) -> Mapping[str, str]:
        environment = dict(os.environ)
        options = self.options
        if not names_endpoint(environment):
            environment[ENDPOINT[0]] = options.store_endpoint
        if options.store_region and not names_region(environment):
            environment[REGION[0]] = options.store_region
        if not names_credentials(environment):
            environment |= self.store_credentials()
        return environment

    def store_credentials(self) -> dict[str, str]:
        """Read the store's credentials from the secret in the namespace of the runs.

        Raises:
            ClusterError: if it is not there, may not be read, or lacks a key.
        """
        options = self.options
        with self.asking(f"read the secret {options.store_secret} of {options.namespace}"):
            secret = self.core.read_namespaced_secret(
                options.store_secret, options.namespace, _request_timeout=TIMEOUT
            )
        data = secret.data or {}
        fields = (options.access_key_field, options.secret_key_field)
        missing = [field for field in fields if not data.get(field)]
        if missing:
            raise ClusterError(
                f"the secret {options.store_secret} of namespace {options.namespace} has no key "
                f"{' and no key '.join(missing)}; it has {', '.join(sorted(data)) or 'none'}. "
                "Name its keys: --cluster access_key_field=NAME --cluster secret_key_field=NAME"
            )
        access, secret_key = (base64.b64decode(data[field]).decode() for field in fields)
        return {ACCESS_KEY: access, SECRET_KEY: secret_key}

    def _translated(self, error: Exception, what: str) -> ClusterError | None:
        import kfp_server_api
        import urllib3
        from kubernetes import client
        from kubernetes.config import ConfigException

        if isinstance(error, ConfigException):
            return ClusterError(f"cannot {what}: {error}")
        if isinstance(error, urllib3.exceptions.HTTPError):
            place = self.server_name if self.options.server else "the cluster of the kubeconfig"
            return ClusterError(f"cannot {what}: {place} does not answer ({_root(error)})")
        if isinstance(error, client.ApiException | kfp_server_api.ApiException):
            kind = NotAllowedError if error.status in (401, 403) else ClusterError
            return kind(f"cannot {what}: {self._refusal(error)}")
        return None

    def _refusal(self, error: Any) -> str:
        words = _message(error)
        if error.status == 401:
            return (
                f"the credentials are not accepted (401: {words}); have they expired? Log in anew"
            )
        if error.status == 403:
            return f"this user may not ({words})"
        if error.status == 404:
            return f"it does not exist ({words})"
        return f"HTTP {error.status}: {words}"


def cluster_options(values: Sequence[str] = (), *, ask: bool = True) -> ClusterOptions:
    """Collect the options of a cluster.

    What the chart wrote into the namespace's config map counts least, then the file that
    MOCO_CLUSTER names, then `@FILE`, then single values.

    Args:
        values: `KEY=VALUE` or `@FILE`, as given to `--cluster`.
        ask: Whether the cluster may be asked for its config map.

    Raises:
        UsageError, ConfigError: naming every value that is wrong.
        ClusterError: if the cluster is to be asked and does not answer.
    """
    files = [value for value in values if value.startswith("@")]
    if len(files) > 1:
        raise UsageError(f"--cluster takes one @FILE, not {len(files)}")
    if not files and (default := os.environ.get(OPTIONS_VARIABLE)):
        files = [f"@{default.removeprefix('@')}"]
    single: dict[str, str] = {}
    for value in (value for value in values if not value.startswith("@")):
        name, equals, content = value.partition("=")
        if not equals:
            raise UsageError(f"--cluster {value}: expected --cluster KEY=VALUE or --cluster @FILE")
        single[name] = content
    given = read_config(ClusterOptions, files[0]) if files else ClusterOptions()
    chosen = apply_settings(given, single)
    if not ask:
        return chosen
    names = given.model_fields_set | {name.partition(".")[0] for name in single}
    known = _of_the_chart(chosen, "namespace" in names)
    return apply_settings(
        known.model_copy(update={name: getattr(given, name) for name in given.model_fields_set}),
        single,
    )


def _of_the_chart(chosen: ClusterOptions, in_namespace: bool) -> ClusterOptions:
    """Read what the chart wrote; the defaults where there is no chart or nobody may look."""
    from kubernetes.client import ApiException

    context = chosen.context
    namespace = chosen.namespace if in_namespace else _namespace(chosen)
    cluster = Cluster(chosen)
    with cluster.asking(f"read the config map {CONFIG_MAP} of namespace {namespace}"):
        try:
            config_map = cluster.core.read_namespaced_config_map(
                CONFIG_MAP, namespace, _request_timeout=TIMEOUT
            )
        except ApiException as error:
            if error.status not in (403, 404):
                raise
            return ClusterOptions(context=context, namespace=namespace)
    try:
        known = read_config(ClusterOptions, (config_map.data or {}).get(KEY, "{}"))
    except ConfigError as error:
        raise ConfigError(f"config map {CONFIG_MAP} of namespace {namespace}: {error}") from None
    return known.model_copy(update={"context": context, "namespace": namespace})


def _namespace(chosen: ClusterOptions) -> str:
    """Return the namespace of the kubeconfig's context, else the default one."""
    from kubernetes import config

    try:
        contexts, active = config.list_kube_config_contexts(config_file=_kubeconfig())
    except config.ConfigException:
        return chosen.namespace
    for context in contexts:
        if context["name"] == (chosen.context or active["name"]):
            return str(context["context"].get("namespace") or chosen.namespace)
    return chosen.namespace


def _configured(configuration: Any, context: str | None) -> Any:
    """Fill in where the Kubernetes API is and who asks: the pod's own account, or a kubeconfig."""
    from kubernetes import config

    try:
        if context is None and "KUBECONFIG" not in os.environ and _in_a_pod():
            config.load_incluster_config(configuration)
        else:
            config.load_kube_config(
                config_file=_kubeconfig(), client_configuration=configuration, context=context
            )
    except config.ConfigException as error:
        named = f"context {context!r}: " if context else ""
        words = str(error).rstrip(".")
        raise ClusterError(
            f"no way to a cluster: {named}{words}. `kubectl config get-contexts` lists what there "
            "is; KUBECONFIG names the file, --cluster context=NAME a context"
        ) from None
    return configuration


def _kubeconfig() -> str | None:
    """Name the kubeconfig: the client itself reads the variable only when it is imported."""
    return os.environ.get("KUBECONFIG")


def _token_of_the_pod() -> str | None:
    """Return the token that a Kubeflow for many users gives pods that may use its pipelines."""
    path = Path(os.environ.get(TOKEN_PATH) or "/var/run/secrets/kubeflow/pipelines/token")
    return path.read_text("utf-8").strip() if path.is_file() else None


def _in_a_pod() -> bool:
    return Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()


def _root(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    cause = reason if isinstance(reason, BaseException) else error
    words = str(cause).rpartition(": ")[2] or type(cause).__name__
    host = getattr(getattr(error, "pool", None), "host", None)
    return f"{host}: {words}" if host else words


def _message(error: Any) -> str:
    """Return the words in an API's answer."""
    try:
        document = json.loads(error.body)
    except (TypeError, ValueError):
        return str(error.reason or error.body or error)
    words = document.get("message") or document.get("error") or error.reason
    return str(words)
