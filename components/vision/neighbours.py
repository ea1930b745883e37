"""Classification of features by a weighted vote of their nearest neighbours (Wu et al. 2018)."""

import torch
from torch import Tensor

_SIMILARITIES = 1 << 28  # numbers at a time: 1 GiB
_BLOCK = 64  # neighbours in the bank whose best one is looked at first
_SCALE = 64.0  # so that lower halves are not among the smallest numbers, which lack digits


def knn_predict(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor,
    *,
    classes: int,
    neighbours: int = 200,
    temperature: float = 0.07,
    chunk: int | None = None,
) -> Tensor:
    """Classify features by a weighted vote of their nearest neighbours.

    Args:
        queries: Unit vectors, (Q, D).
        bank: Unit vectors of known class, (N, D).
        labels: Their classes, (N,).
        classes: Number of classes.
        neighbours: How many vote; all of the bank if it has fewer.
        temperature: A vote weighs exp(similarity / temperature).
        chunk: Queries that are compared at a time; as many as need 1 GiB by default.

    Returns:
        Predicted classes, (Q,).
    """
    neighbours = min(neighbours, len(bank))
    similar = _Similarity(bank)
    predictions = []
    for part in queries.split(chunk or max(1, _SIMILARITIES // len(bank))):
        similarity, nearest = _largest(similar(part), neighbours)
        weights = torch.exp(similarity / (temperature * similar.scale))
        votes = weights.new_zeros(len(part), classes)
        if votes.is_cuda and torch.are_deterministic_algorithms_enabled():
            rows = torch.arange(len(part), device=votes.device)[:, None]
            votes.index_put_((rows, labels[nearest]), weights, accumulate=True)
        else:
            votes.scatter_add_(1, labels[nearest], weights)
        predictions.append(votes.argmax(1))
    return torch.cat(predictions)


class _Similarity:
    """Products of unit vectors with those of a bank, as exact as single precision has them.

    A GPU's matrix units multiply half precision, which would change votes. A number as the sum of
    two halves has all of its digits, and three products of them are still several times as fast.

    Attributes:
        scale: What similarities come multiplied with.
    """

    def __init__(self, bank: Tensor) -> None:
        self.scale = 1.0
        self._columns = bank.float().T
        if bank.is_cuda:
            self.scale = _SCALE**2
            high, low = _halves(bank)
            self._columns = torch.cat([high, low, high], 1).T

    def __call__(self, queries: Tensor) -> Tensor:
        """Return the similarity of each query to each entry, scaled, (Q, N), float32."""
        if not queries.is_cuda:
            return queries.float() @ self._columns
        high, low = _halves(queries)
        return torch.mm(torch.cat([high, high, low], 1), self._columns, out_dtype=torch.float32)


def _halves(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return two halves whose sum are the vectors, scaled."""
    scaled = vectors.float() * _SCALE
    high = scaled.half()
    return high, (scaled - high.float()).half()


def _largest(similarity: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest numbers of each row, in any order, and their places, (Q, count) each.

    They are in no more blocks than there are of them: those whose best is largest. To sort out
    these takes one pass over all numbers, and a selection among few.
    """
    columns = similarity.shape[1]
    blocks = columns // _BLOCK
    if blocks <= count:
        largest = similarity.topk(count, dim=1, sorted=False)
        return largest.values, largest.indices
    end = blocks * _BLOCK
    whole = similarity[:, :end].unflatten(1, (blocks, _BLOCK))
    chosen = whole.amax(2).topk(count, dim=1, sorted=False).indices
    candidates = whole.gather(1, chosen[..., None].expand(-1, -1, _BLOCK)).flatten(1)
    candidates = torch.cat([candidates, similarity[:, end:]], 1)
    largest = candidates.topk(count, dim=1, sorted=False)
    # The first candidates are those of the chosen blocks, the last ones what fills no block.
    in_block = largest.indices < count * _BLOCK
    block = chosen.gather(1, (largest.indices // _BLOCK).clamp(max=count - 1))
    places = torch.where(
        in_block,
        block * _BLOCK + largest.indices % _BLOCK,
        largest.indices - count * _BLOCK + end,
    )
    return largest.values, places
