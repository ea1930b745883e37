"""A billion pictures for 64 GPUs, simulated: who waits, and what the store is asked for.

Order, windows and requests are those of the loader itself; time is simulated, so that neither
sockets nor shards are needed. A request waits as long as one of a MinIO server was measured to, and
a round trip; then its bytes come at the rate of a connection. A step begins when all ranks have
their images.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.vision.config import LoaderConfig
from components.vision.image_sets import ImageSet
from components.vision.loading import RUN
from components.vision.sampling import Key, RunSampler
from components.vision.streaming import CONNECTIONS, Stream

RANKS, BATCH = 64, 1024
SHARDS, PICTURES = 100_000, 10_000
PICTURE = 110_000  # bytes, as ImageNet's; IG-1B's are not known
STEPS = 3000
QUANTILES = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1)
MINIO_MS = (1.1, 1.2, 1.3, 1.6, 2.2, 3.0, 8.6, 17.8, 22.9)  # of 500 requests, on 2026-11-28
CONNECTION = 80e6  # bytes a second
CONFIG = LoaderConfig()


@dataclass(frozen=True)
class Site:
    """A cluster and its store.

    Attributes:
        name: For the table.
        rate: Images that a GPU takes, a second.
        round_trip: To the store, seconds.
        stalled: Share of requests that hang for `stall` seconds.
        stall: Seconds.
        read_ahead: MiB of a rank.
    """

    name: str
    rate: float
    round_trip: float
    stalled: float = 0.0
    stall: float = 0.0
    read_ahead: int = CONFIG.read_ahead


SITES = (
    Site("V100s at the paper's 168 a second, store 10 ms away", 168, 0.010),
    Site("H200s at 3,064 a second, store 10 ms away", 3064, 0.010),
    Site("the same, store 50 ms away", 3064, 0.050),
    Site("the same, 1 request of 1,000 hangs for a second", 3064, 0.050, 0.001, 1.0),
    Site("the same, and read_ahead=2048", 3064, 0.050, 0.001, 1.0, read_ahead=2048),
)


def run() -> Iterator[dict[str, Any]]:
    """Simulate each site; the figure is the share of time that GPUs wait, in percent."""
    sampler = RunSampler(SHARDS * PICTURES, BATCH, run=RUN // PICTURE)
    for site in SITES:
        told = _simulate(site, sampler)
        yield {
            "name": f"{RANKS} ranks on {SHARDS:,} shards, {site.name}: waiting, %",
            "ratio": round(told["waiting"], 2),
            "goal": 1.0,
            "lower_is_better": True,
            "detail": f"first batch after {told['first']:.2f} s; {told['requests']:,.0f} requests "
            f"and {told['gigabytes']:.1f} GB a second, {told['mean']:.1f} MB each; a rank holds "
            f"{told['ahead']:.0f} MiB at most",
        }


class _Files(Sequence[str]):
    """Names of a billion pictures, none of which is there."""

    def __len__(self) -> int:
        return SHARDS * PICTURES

    def __getitem__(self, index: Any) -> Any:
        shard, place = divmod(index, PICTURES)
        return f"{shard:06}.tar@{place * (PICTURE + 1024) + 512}+{PICTURE}"


class _Rank:
    """What a rank asks for, and when it is there."""

    def __init__(self, site: Site, batches: list[list[Key]], seed: int) -> None:
        images = ImageSet(Path("/"), _Files(), np.empty(0, np.int32), shard_bytes=PICTURE + 1024)
        self.stream = Stream(images, _Zeros(), site.read_ahead << 20)
        self.windows = list(self.stream.windows(batches))
        self.site = site
        self.random = np.random.default_rng(seed)
        self.connections = [0.0] * CONNECTIONS
        self.ready: list[float] = []
        self.begins = np.cumsum([0, *map(len, self.windows)]).tolist()
        self.begun = 0
        self.requests: list[int] = []
        self.held = 0

    def ask(self, batch: int, now: float) -> float:
        """Ask for a batch; return when it is there."""
        # As the loader does: with the first batch of a window the one after it is begun.
        while self.begun < len(self.windows) and (
            self.begun == 0 or self.begins[self.begun - 1] <= batch
        ):
            self._begin(self.windows[self.begun], now)
            self.begun += 1
        return self.ready[batch]

    def _begin(self, window: Sequence[Sequence[Key]], now: float) -> None:
        requests = self.stream.requests({index for batch in window for _, index in batch})
        done: dict[int, float] = {}
        for batch in window:
            for _, index in batch:
                request = requests[index]
                if id(request) not in done:
                    free = max(now, heapq.heappop(self.connections))
                    size = request.end - request.first
                    done[id(request)] = free + self._seconds(size)
                    heapq.heappush(self.connections, done[id(request)])
                    self.requests.append(size)
            self.ready.append(max(done[id(requests[index])] for _, index in batch))
        before = self.windows[self.begun - 1] if self.begun else []
        size = sum(len(batch) for batch in (*before, *window)) * PICTURE
        self.held = max(self.held, size)

    def _seconds(self, size: int) -> float:
        site = self.site
        waited = np.interp(self.random.random(), QUANTILES, MINIO_MS) / 1e3 + site.round_trip
        hung = site.stall if self.random.random() < site.stalled else 0.0
        return float(waited + hung + size / CONNECTION)


class _Zeros:
    """Shards that hold nothing: what is asked of them is planned, and not read."""

    def read(self, name: str, offset: int, size: int) -> bytes:
        return bytes(size)


def _simulate(site: Site, sampler: RunSampler) -> dict[str, float]:
    ahead = CONFIG.workers * CONFIG.prefetch  # batches that torch's loader asks for beforehand
    whole = [sampler.indices(0, step).reshape(RANKS, -1).tolist() for step in range(STEPS)]
    ranks = [
        _Rank(site, [[(0, index) for index in shares[rank]] for shares in whole], rank)
        for rank in range(RANKS)
    ]
    seconds = BATCH / RANKS / site.rate
    starts: list[float] = []
    for step in range(STEPS):
        asked = starts[step - ahead] if step >= ahead else 0.0
        there = max(rank.ask(step, asked) for rank in ranks)
        starts.append(max(there, starts[-1] + seconds) if starts else there)
    end = starts[-1] + seconds
    requests = [size for rank in ranks for size in rank.requests]
    return {
        "first": starts[0],
        "waiting": max(0.0, 100 * (1 - STEPS * seconds / (end - starts[0]))),
        "requests": len(requests) / end,
        "gigabytes": sum(requests) / end / 1e9,
        "mean": float(np.mean(requests)) / 1e6,
        "ahead": max(rank.held for rank in ranks) / (1 << 20),
    }
