import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import KNeighborsClassifier

from components.vision.neighbours import knn_predict


@pytest.fixture
def features() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(7, 12, generator=generator)
    labels = torch.randint(0, 7, (400,), generator=generator)
    bank = F.normalize(centres[labels] + torch.randn(400, 12, generator=generator), dim=1)
    queries = F.normalize(torch.randn(90, 12, generator=generator), dim=1)
    return queries, bank, labels


@pytest.mark.parametrize("chunk", [7, 1024])
def test_the_vote_equals_scikit_learns(
    features: tuple[torch.Tensor, torch.Tensor, torch.Tensor], chunk: int
) -> None:
    queries, bank, labels = features

    def weights(distances: np.ndarray) -> np.ndarray:  # of unit vectors: d² = 2 - 2 s
        return np.exp((1 - distances**2 / 2) / 0.07)

    peer = KNeighborsClassifier(n_neighbors=50, weights=weights, algorithm="brute")
    peer.fit(bank.numpy(), labels.numpy())
    ours = knn_predict(queries, bank, labels, classes=7, neighbours=50, chunk=chunk)
    assert ours.tolist() == peer.predict(queries.numpy()).tolist()


def test_a_bank_smaller_than_the_neighbourhood_votes_as_a_whole(
    features: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    queries, bank, labels = features
    all_of_it = knn_predict(queries, bank, labels, classes=7, neighbours=400)
    assert torch.equal(knn_predict(queries, bank, labels, classes=7, neighbours=5000), all_of_it)
