"""A tiny real stage, for what is between a command line and the work."""

import os
import sys
import time
from pathlib import Path

from components.core import log
from components.core.config import Config
from components.core.main import run
from components.core.stage import Job, Port, Stage


class TinyConfig(Config):
    """What the tiny stage does."""

    text: str = ""
    """what it adds to what it reads"""
    large: int = 0
    """bytes of one more file"""
    started: str = ""
    """a file that it makes when it starts"""
    wait: float = 0.0
    """seconds"""
    defect: bool = False
    """fail as a program does, with a traceback that shows the environment"""


STAGE = Stage(
    name="tiny",
    summary="Join texts.",
    config=TinyConfig,
    inputs={
        "data": Port("Dataset", "a text", optional=True),
        "model": Port("Model", "a text", optional=True, foreign=True),
        "others": Port("Model", "texts", many=True),
    },
    outputs={"weights": Port("Model", "the texts"), "page": Port("HTML", "the texts as a page")},
    run="tests.core.tiny:work",
    resumable=True,
)


def work(job: Job[TinyConfig]) -> None:
    """Join the texts of the inputs and of the config."""
    config = job.config
    if config.started:
        Path(config.started).touch()
    time.sleep(config.wait)
    if config.defect:
        raise RuntimeError(f"a defect in {dict(os.environ)}")
    text = "".join(_text(job.input(name)) for name in sorted(job.paths)) + config.text
    (job.output("weights") / "deep").mkdir()
    (job.output("weights") / "deep" / "text").write_text(text)
    (job.output("weights") / "large").write_bytes(bytes(config.large))
    job.output("page").write_text(f"<p>{text}</p>")
    job.facts["state"] = job.state
    job.facts["data"] = job.identity["data"]


def _text(path: Path) -> str:
    return (path if path.is_file() else path / "deep" / "text").read_text()


if __name__ == "__main__":
    log.configure()
    sys.exit(run(STAGE, sys.argv[1:]))
