"""The kNN monitor on 200,000 × 128, against lightly's on the same GPU."""

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from components.vision.neighbours import knn_predict
from tests.benchmarks.gpu._measure import free, skipped

CLASSES = 1000
QUERIES = 4096  # some of the 50,000 that the monitor has on ImageNet
BATCH = 512  # of lightly's, which takes 2 GB for each


def run() -> Iterator[dict[str, Any]]:
    """Measure; the ratio is the peer's time over ours."""
    name = "kNN monitor, queries on 200,000 × 128 / lightly's"
    if find_spec("lightly") is None:
        yield skipped(name, "lightly is not installed here")
        return
    from lightly.utils.benchmarking import knn_predict as lightly_knn

    torch.manual_seed(0)
    queries = F.normalize(torch.randn(QUERIES, 128, device="cuda"), dim=1)
    bank = F.normalize(torch.randn(200_000, 128, device="cuda"), dim=1)
    labels = torch.randint(0, CLASSES, (len(bank),), device="cuda")
    columns = bank.T.contiguous()

    def ours() -> Tensor:
        return knn_predict(queries, bank, labels, classes=CLASSES)

    def peer() -> Tensor:
        found = [
            lightly_knn(part, columns, labels, num_classes=CLASSES, knn_k=200, knn_t=0.07)[:, 0]
            for part in queries.split(BATCH)
        ]
        return torch.cat(found)

    same = float((ours() == peer()).float().mean())
    (own, own_peak), (other, other_peak) = _milliseconds(ours), _milliseconds(peer)
    yield {
        "name": name,
        "ratio": round(other / own, 2),
        "goal": 10,
        "detail": f"{own:.2f} against {other:.2f} ms for {QUERIES:,}; {own_peak / 1e9:.1f} against "
        f"{other_peak / 1e9:.1f} GB; {100 * same:.1f} % of the votes are the same",
    }


def _milliseconds(call: Callable[[], object]) -> tuple[float, int]:
    """Return the median time of a call, and the peak of memory, bytes."""
    free()
    times = []
    for _ in range(10):
        torch.cuda.synchronize()
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 1e3 * sorted(times)[len(times) // 2], torch.cuda.max_memory_allocated()
