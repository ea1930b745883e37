"""A stage whose ports are URLs of a real server's bucket."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from io import BytesIO
from pathlib import Path

import pytest

from components.core import publish
from components.core.errors import ExitCode, NotWritableError
from components.core.manifest import Manifest, verify
from components.core.publish import Publication
from components.core.store import open_store
from components.core.store.place import Places
from tests.core.test_manifest import artifact
from tests.servers.minio import MinioServer

STARTED_SECONDS = 120


def command(*arguments: str, **config: object) -> list[str]:
    return [sys.executable, "-m", "tests.core.tiny", "--config", json.dumps(config), *arguments]


def tiny(
    *arguments: str, environment: dict[str, str] | None = None, **config: object
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(*arguments, **config),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def outputs(url: str) -> list[str]:
    return ["--output.weights", f"{url}/weights", "--output.page", f"{url}/page.html"]


def keys(url: str) -> list[str]:
    return [entry.key for entry in open_store(url).list()]


def fetched(url: str, folder: Path) -> Manifest:
    """Fetch an artifact as a consumer does, and verify it."""
    open_store(url).get_folder("", folder)
    return verify(folder)


WHOLE = ["page.html", "weights/deep/text", "weights/large", "weights/manifest.json"]


def test_artifacts_go_from_bucket_to_bucket(bucket_url: str, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    scratch = {"TMPDIR": str(tmp_path / "scratch")}
    first = tiny(*outputs(f"{bucket_url}/one"), environment=scratch, text="a", large=3)
    assert first.returncode == 0, first.stderr

    inputs = ["--input.model", f"{bucket_url}/one/weights/"]
    inputs += ["--input.others.x", f"{bucket_url.replace('s3:', 'minio:')}/one/weights"]
    second = tiny(*inputs, *outputs(f"{bucket_url}/two"), environment=scratch, text="b")
    assert second.returncode == 0, second.stderr

    one = fetched(f"{bucket_url}/one/weights", tmp_path / "one")
    two = fetched(f"{bucket_url}/two/weights", tmp_path / "two")
    assert (tmp_path / "two/deep/text").read_text() == "aab"
    assert {lineage.digest for lineage in two.inputs.values()} == {one.digest}
    assert one.facts["state"] == f"{bucket_url}/one/weights.state"
    assert open_store(bucket_url).read("two/page.html") == b"<p>aab</p>"
    # No claim, no probe, no mark of an unfinished output.
    assert keys(bucket_url) == [f"{run}/{name}" for run in ("one", "two") for name in WHOLE]
    assert not list((tmp_path / "scratch").iterdir())


def test_folders_and_buckets_mix(bucket_url: str, tmp_path: Path) -> None:
    (tmp_path / "data/deep").mkdir(parents=True)
    artifact(tmp_path / "data", {"deep/text": "here "}, kind="Dataset")
    page = tmp_path / "page.html"

    done = tiny(
        *("--input.data", str(tmp_path / "data"), "--output.page", str(page)),
        *("--output.weights", f"{bucket_url}/weights"),
        text="there",
    )

    assert done.returncode == 0, done.stderr
    assert page.read_text() == "<p>here there</p>"
    assert keys(bucket_url) == [name for name in WHOLE if name != "page.html"]


def test_a_file_from_elsewhere_may_be_in_a_bucket(
    bucket_url: str, minio_server: MinioServer, tmp_path: Path
) -> None:
    bucket = bucket_url.removeprefix("s3://")
    minio_server.client().put_object(bucket, "models/moco.pth.tar", BytesIO(b"theirs"), 6)
    url = f"{bucket_url}/models/moco.pth.tar"

    refused = tiny("--input.others.x", url, *outputs(f"{bucket_url}/no"))
    assert refused.returncode == ExitCode.BAD_DATA
    assert f"{url} is a file; it must be an artifact's folder" in refused.stderr

    done = tiny("--input.model", url, *outputs(f"{bucket_url}/run"))
    assert done.returncode == 0, done.stderr
    assert open_store(bucket_url).read("run/weights/deep/text") == b"theirs"
    manifest = fetched(f"{bucket_url}/run/weights", tmp_path / "got")
    assert manifest.inputs["model"].name == "moco.pth.tar"


def test_an_input_that_is_missing_or_unfinished_is_named(bucket_url: str) -> None:
    open_store(bucket_url).write("half/deep/text", b"no manifest")

    missing = tiny("--input.model", f"{bucket_url}/nothing", *outputs(f"{bucket_url}/run"))
    assert missing.returncode == ExitCode.BAD_DATA
    assert f"input model: {bucket_url}/nothing does not exist" in missing.stderr

    half = tiny("--input.model", f"{bucket_url}/half", *outputs(f"{bucket_url}/run"))
    assert half.returncode == ExitCode.BAD_DATA
    assert f"{bucket_url}/half has no manifest.json" in half.stderr
    assert "moco-" not in half.stderr.replace(bucket_url, "")  # of the scratch folder nothing

    whole = tiny("--input.model", bucket_url, *outputs(f"{bucket_url}/run"))
    assert whole.returncode == ExitCode.USAGE
    assert keys(bucket_url) == ["half/deep/text"]


def test_an_artifact_that_was_tampered_with_in_the_bucket_is_refused(
    bucket_url: str, minio_server: MinioServer
) -> None:
    assert tiny(*outputs(f"{bucket_url}/one"), text="mine").returncode == 0
    bucket = bucket_url.removeprefix("s3://")  # the new object has no hash of ours in its metadata
    minio_server.client().put_object(bucket, "one/weights/deep/text", BytesIO(b"evil"), 4)

    done = tiny("--input.model", f"{bucket_url}/one/weights", *outputs(f"{bucket_url}/two"))

    assert done.returncode == ExitCode.BAD_DATA
    assert f"the artifact {bucket_url}/one/weights does not match its manifest" in done.stderr
    assert "deep/text has 4 bytes" in done.stderr
    assert not keys(f"{bucket_url}/two")


@pytest.mark.parametrize(
    ("held", "words"), [("manifest.json", "a finished artifact"), ("thesis.tex", "other files")]
)
def test_a_place_that_is_taken_is_left_alone(
    bucket_url: str, tmp_path: Path, held: str, words: str
) -> None:
    open_store(bucket_url).write(f"weights/{held}", b"years of work")

    done = tiny(*outputs(bucket_url), started=str(tmp_path / "started"))

    assert done.returncode == ExitCode.NO_PERMISSION
    assert f"{bucket_url}/weights already holds {words}" in done.stderr
    assert not (tmp_path / "started").exists()
    assert keys(bucket_url) == [f"weights/{held}"]


@pytest.mark.parametrize("fault", ["secret", "bucket", "server"])
def test_a_store_that_cannot_be_used_is_found_before_the_work(
    bucket_url: str, tmp_path: Path, fault: str
) -> None:
    wrong = {
        "secret": {"AWS_SECRET_ACCESS_KEY": "somebody-elses"},
        "bucket": {},
        "server": {"MOCO_S3_ENDPOINT": "http://127.0.0.1:1"},
    }
    url = f"{bucket_url}-missing" if fault == "bucket" else bucket_url

    done = tiny(*outputs(url), environment=wrong[fault], started=str(tmp_path / "started"))

    assert done.returncode == ExitCode.LOST_STORE
    assert url in done.stderr
    assert "somebody-elses" not in done.stderr
    assert not (tmp_path / "started").exists()


def test_a_store_is_tried_before_torch_is_imported(bucket_url: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "components.pretrain"]
    command += ["--input.data", f"{bucket_url}/data", "--output.metrics", f"{bucket_url}/metrics"]
    command += ["--output.encoder", f"{bucket_url}-missing/encoder"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == ExitCode.LOST_STORE, done.stderr[-500:]
    assert "create the bucket, or correct its name" in done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "minio" in imported
    assert "torch" not in imported


def test_a_bucket_that_may_only_be_read_is_found_before_the_work(
    bucket_url: str, own_server: MinioServer, tmp_path: Path
) -> None:
    bucket = bucket_url.removeprefix("s3://")
    user, secret = own_server.add_user(bucket, ["s3:GetObject", "s3:ListBucket"])
    reader = {"AWS_ACCESS_KEY_ID": user, "AWS_SECRET_ACCESS_KEY": secret}
    assert tiny(*outputs(f"{bucket_url}/one"), text="a").returncode == 0
    inputs = ["--input.model", f"{bucket_url}/one/weights"]

    refused = tiny(
        *inputs,
        *outputs(f"{bucket_url}/two"),
        environment=reader,
        started=str(tmp_path / "started"),
    )
    assert refused.returncode == ExitCode.NO_PERMISSION
    assert f"{bucket_url}/two may be read" in refused.stderr
    assert "give this key the right" in refused.stderr
    assert not (tmp_path / "started").exists()

    local = tiny(*inputs, *outputs(str(tmp_path)), environment=reader)  # reading is enough here
    assert local.returncode == 0, local.stderr


def test_a_full_scratch_folder_has_its_own_code(bucket_url: str, small_disk: Path) -> None:
    assert tiny(*outputs(f"{bucket_url}/one"), large=2 << 20).returncode == 0

    done = tiny(
        *("--input.model", f"{bucket_url}/one/weights"),
        *outputs(f"{bucket_url}/two"),
        environment={"TMPDIR": str(small_disk)},
    )

    assert done.returncode == ExitCode.DISK_FULL
    assert not list(small_disk.iterdir())
    assert not keys(f"{bucket_url}/two")


def test_a_helper_node_works_and_leaves_nothing(bucket_url: str, tmp_path: Path) -> None:
    node = {"PET_NODE_RANK": "1", "TMPDIR": str(tmp_path / "scratch")}
    (tmp_path / "scratch").mkdir()
    open_store(bucket_url).write("weights/deep/text", b"the first node may be writing already")

    for place in (bucket_url, str(tmp_path / "outputs")):
        started = tmp_path / f"started-{len(place)}"
        done = tiny(*outputs(place), environment=node, started=str(started))
        assert done.returncode == 0, done.stderr
        assert started.exists()

    assert keys(bucket_url) == ["weights/deep/text"]
    assert not (tmp_path / "outputs").exists()
    assert not list((tmp_path / "scratch").iterdir())

    first = {**node, "PET_NODE_RANK": "0"}
    assert tiny(*outputs(f"{bucket_url}/run"), environment=first).returncode == 0
    assert keys(f"{bucket_url}/run") == WHOLE


def test_a_signal_removes_the_scratch_folder(bucket_url: str, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    started = tmp_path / "started"
    process = subprocess.Popen(
        command(*outputs(bucket_url), started=str(started), wait=STARTED_SECONDS),
        env={**os.environ, "TMPDIR": str(tmp_path / "scratch")},
    )
    try:
        wait_for(started)
        assert list((tmp_path / "scratch").iterdir())
        process.send_signal(signal.SIGTERM)
        assert process.wait(STARTED_SECONDS) == ExitCode.INTERRUPTED
    finally:
        process.kill()
    assert not list((tmp_path / "scratch").iterdir())
    assert not keys(bucket_url)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + STARTED_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Two writers, one place.


def made(folder: Path, text: str, files: int = 3) -> dict[str, Path]:
    """Make outputs whose every file tells whose they are."""
    (folder / "weights").mkdir(parents=True)
    contents = {f"part-{n}": text for n in range(files)}
    artifact(folder / "weights", contents, config={"text": text})
    (folder / "page").write_text(text)
    return {"weights": folder / "weights", "page": folder / "page"}


def publication(url: str) -> Publication:
    places = Places()
    weights, page = places.find(f"{url}/weights"), places.find(f"{url}/page.html")
    return Publication({"weights": weights}, {"page": page})


@pytest.mark.parametrize("texts", ["abcd", "aaaa"])
def test_of_attempts_that_race_one_wins_whole(bucket_url: str, tmp_path: Path, texts: str) -> None:
    attempts = [(made(tmp_path / str(n), text), text) for n, text in enumerate(texts)]
    outcomes: dict[int, str] = {}
    barrier = threading.Barrier(len(texts))

    def compete(number: int) -> None:
        attempt = publication(bucket_url)
        attempt.begin()
        barrier.wait()
        try:
            attempt.finish(attempts[number][0])
            outcomes[number] = "won"
        except NotWritableError as error:
            outcomes[number] = str(error)

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    manifest = fetched(f"{bucket_url}/weights", tmp_path / "got")
    winner = manifest.config["text"]
    assert open_store(bucket_url).read("page.html").decode() == winner
    assert len(outcomes) == len(texts)
    for number, outcome in outcomes.items():
        if attempts[number][1] == winner:
            assert outcome == "won"
        else:
            assert "another attempt was first" in outcome
            assert f"{bucket_url}/weights" in outcome
    assert not [key for key in keys(bucket_url) if key.endswith(".claim")]


def test_of_two_processes_that_race_one_leaves_cleanly(bucket_url: str, tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            command(*outputs(bucket_url), text=text, started=str(tmp_path / text), wait=5),
            stderr=subprocess.PIPE,
            text=True,
        )
        for text in ("one", "two")
    ]
    said = [process.communicate(timeout=STARTED_SECONDS)[1] for process in processes]

    codes = [process.returncode for process in processes]
    assert sorted(codes) == [ExitCode.OK, ExitCode.NO_PERMISSION], said
    assert "Traceback" not in "".join(said)
    fetched(f"{bucket_url}/weights", tmp_path / "got")
    winner = ("one", "two")[codes.index(ExitCode.OK)]
    assert (tmp_path / "got/deep/text").read_text() == winner
    assert open_store(bucket_url).read("page.html").decode() == f"<p>{winner}</p>"


class Dead(Exception):  # noqa: N818
    """The process ends here."""


def die_while_uploading(
    url: str, ready: dict[str, Path], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Upload until a number of objects were written, then stop as SIGKILL does."""
    attempt = publication(url)
    store = attempt._store
    for name in ("put", "write"):
        real = getattr(store, name)

        def mortal(*arguments: object, _real: object = real, **options: object) -> object:
            nonlocal after
            after -= 1
            if after < 0:
                raise Dead
            return _real(*arguments, **options)  # type: ignore[operator]

        monkeypatch.setattr(store, name, mortal)
    attempt.begin()
    with pytest.raises(Dead):
        attempt.finish(ready)


@pytest.mark.parametrize("after", range(7))
@pytest.mark.parametrize("text", ["same", "other"])
def test_an_attempt_that_died_while_uploading_is_replaced(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, text: str
) -> None:
    monkeypatch.setattr(publish, "PATIENCE", 1)
    monkeypatch.setattr(publish, "POLL", 0.2)
    die_while_uploading(bucket_url, made(tmp_path / "dead", "same", 4), monkeypatch, after)
    assert "weights/manifest.json" not in keys(bucket_url)

    again = publication(bucket_url)
    again.begin()
    again.finish(made(tmp_path / "again", text))

    assert fetched(f"{bucket_url}/weights", tmp_path / "got").config["text"] == text
    assert open_store(bucket_url).read("page.html").decode() == text
    assert not [key for key in keys(bucket_url) if key.endswith(".claim")]


def test_an_attempt_that_may_be_alive_is_waited_for(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "PATIENCE", STARTED_SECONDS)
    monkeypatch.setattr(publish, "POLL", 0.2)
    slow, quick = publication(bucket_url), publication(bucket_url)
    slow.begin()
    quick.begin()
    uploading, go_on = threading.Event(), threading.Event()
    put = slow._store.put

    def slow_put(source: Path, key: str) -> None:
        uploading.set()
        assert go_on.wait(STARTED_SECONDS)
        put(source, key)

    monkeypatch.setattr(slow._store, "put", slow_put)
    winner = threading.Thread(target=slow.finish, args=(made(tmp_path / "slow", "slow"),))
    winner.start()
    assert uploading.wait(STARTED_SECONDS)
    threading.Timer(1.0, go_on.set).start()

    with pytest.raises(NotWritableError, match="another attempt was first"):
        quick.finish(made(tmp_path / "quick", "quick"))

    winner.join()
    assert fetched(f"{bucket_url}/weights", tmp_path / "got").config["text"] == "slow"


def test_an_attempt_whose_claim_was_taken_leaves(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "PATIENCE", 0)
    slow, quick = publication(bucket_url), publication(bucket_url)
    slow.begin()
    put_folder = slow._store.put_folder

    def overtaken(folder: Path, prefix: str, *, manifest: bool = True) -> None:
        put_folder(folder, prefix, manifest=manifest)
        quick.finish(made(tmp_path / "quick", "quick", files=1))

    monkeypatch.setattr(slow._store, "put_folder", overtaken)
    with pytest.raises(NotWritableError, match="another attempt was first"):
        slow.finish(made(tmp_path / "slow", "slow"))

    assert open_store(bucket_url).read("page.html") == b"quick"
    assert fetched(f"{bucket_url}/weights", tmp_path / "got").config["text"] == "quick"


def test_a_claim_is_none_of_ours_if_it_says_nothing(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "PATIENCE", 0)
    open_store(bucket_url).write("weights.claim", b"[]")
    attempt = publication(bucket_url)
    attempt.begin()
    attempt.finish(made(tmp_path / "one", "one"))
    assert fetched(f"{bucket_url}/weights", tmp_path / "got").config["text"] == "one"
