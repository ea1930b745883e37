"""The store, as the doctor reaches it from here and from a pod."""

import pytest

from components.core.errors import ExitCode
from tests.cluster.doctor.place import SECRET_NAME, Place

pytestmark = pytest.mark.timeout(900)


def test_a_secret_without_the_key_is_told_what_it_has(place: Place) -> None:
    place.write_secret(accesskey="x", password=place.minio.secret_key)

    code, words, way_out = place.fault("secret", "--no-pods")

    assert code == ExitCode.LOST_CLUSTER
    assert words == (
        f"the secret {SECRET_NAME} of namespace {place.namespace} has no key secretkey; "
        "it has accesskey, password"
    )
    assert way_out == "--cluster secret_key_field=KEY"


def test_wrong_keys_are_refused_by_their_id(place: Place) -> None:
    place.write_secret(accesskey=place.minio.access_key, secretkey="canary-of-the-store")

    code, words, _ = place.fault("store", "--no-pods")

    assert code == ExitCode.LOST_STORE
    assert place.minio.access_key in words
    assert "canary-of-the-store" not in place.printed


def test_a_bucket_that_is_missing_is_named(place: Place) -> None:
    place.write_options(root="minio://nobody-made-this-bucket/v2")

    code, words, way_out = place.fault("store", "--no-pods")

    assert code == ExitCode.LOST_STORE
    assert "NoSuchBucket" in words
    assert "nobody-made-this-bucket" in words
    assert "--cluster root=" in way_out


def test_a_bucket_that_may_only_be_read_is_told_so_from_here_and_from_a_pod(
    place: Place, pod_image: str
) -> None:
    place.write_options(images={"torch": pod_image})
    actions = ["s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject"]
    key, secret = place.minio.add_user(place.bucket, actions)
    place.write_secret(accesskey=key, secretkey=secret)

    code, words, _ = place.fault("store")

    assert code == ExitCode.NO_PERMISSION
    assert "may be read, but not written" in words
    assert key in words
    _, found = place.doctor()
    (inside,) = found["store in pods"]
    assert "may be read, but not written" in inside["words"]
    assert inside["code"] == ExitCode.NO_PERMISSION
    assert secret not in place.printed


def test_a_store_that_only_this_machine_reaches_fails_in_the_pod(
    place: Place, environment: pytest.MonkeyPatch, pod_image: str
) -> None:
    environment.setenv("MOCO_S3_ENDPOINT", place.minio.endpoint)
    place.write_options(images={"torch": pod_image}, store_endpoint="http://nobody.nowhere:9000")

    code, words, way_out = place.fault("store in pods")

    assert code == ExitCode.LOST_STORE
    assert "http://nobody.nowhere:9000" in words
    assert "--cluster store_endpoint=" in way_out


def test_a_store_that_only_pods_reach_gets_a_port_forwarded(place: Place) -> None:
    place.write_options(store_endpoint="http://seaweedfs.kubeflow:9000")

    code, _, way_out = place.fault("store", "--no-pods")

    assert code == ExitCode.LOST_STORE
    assert "kubectl port-forward --namespace kubeflow service/seaweedfs 9000" in way_out
    assert "MOCO_S3_ENDPOINT=http://127.0.0.1:9000" in way_out
