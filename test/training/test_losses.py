"""Every loss against a literal, slow transcription of its equation."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from superpoint_training.homography import HomographyRange, sample_homography
from superpoint_training.losses import detector_loss, hinge_loss, info_nce_loss

BATCH, ROWS, COLUMNS, DIM = 2, 3, 4, 5


def unit(*shape: int, seed: int, dim: int = 1) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=dim)


def some_homographies() -> torch.Tensor:
    rng = np.random.default_rng(2)
    limits = HomographyRange(rotation=30)
    return torch.from_numpy(np.array([sample_homography(rng, (ROWS * 8, COLUMNS * 8), limits) for _ in range(BATCH)]))


def some_mask(seed: int) -> torch.Tensor:
    return torch.rand(BATCH, ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed)) > 0.3


def test_detector_loss_is_equation_2_and_3() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(BATCH, 65, ROWS, COLUMNS, generator=generator)
    answers = torch.randint(0, 65, (BATCH, ROWS, COLUMNS), generator=generator)
    targets = F.one_hot(answers, 65).permute(0, 3, 1, 2).float()
    valid = some_mask(1)
    total, cells = 0.0, 0
    for b in range(BATCH):
        for h in range(ROWS):
            for w in range(COLUMNS):
                if valid[b, h, w]:
                    x = logits[b, :, h, w].double()
                    y = int(answers[b, h, w])
                    total += -math.log(math.exp(x[y]) / sum(math.exp(k) for k in x))
                    cells += 1
    found = detector_loss(logits, targets, valid)
    assert float(found.total) == pytest.approx(total, rel=1e-5)
    assert int(found.count) == cells


def test_hinge_loss_is_equation_4_to_6() -> None:
    first, second = unit(BATCH, DIM, ROWS, COLUMNS, seed=3), unit(BATCH, DIM, ROWS, COLUMNS, seed=4)
    homographies, valid = some_homographies(), (some_mask(5), some_mask(6))
    lambda_d, m_p, m_n = 250.0, 1.0, 0.2
    total, pairs, positives = 0.0, 0, 0
    for b in range(BATCH):
        for h in range(ROWS):
            for w in range(COLUMNS):
                for h2 in range(ROWS):
                    for w2 in range(COLUMNS):
                        if not (valid[0][b, h, w] and valid[1][b, h2, w2]):
                            continue
                        warped = homographies[b].numpy() @ (w * 8 + 3.5, h * 8 + 3.5, 1.0)
                        gap = warped[:2] / warped[2] - (w2 * 8 + 3.5, h2 * 8 + 3.5)
                        s = 1.0 if np.hypot(*gap) <= 8 else 0.0
                        dot = float(first[b, :, h, w] @ second[b, :, h2, w2])
                        total += lambda_d * s * max(0.0, m_p - dot) + (1 - s) * max(0.0, dot - m_n)
                        pairs, positives = pairs + 1, positives + int(s)
    assert positives > 5  # else the test would say little
    found = hinge_loss(first, second, homographies, valid, lambda_d, m_p, m_n)
    assert float(found.total) == pytest.approx(total, rel=1e-5)
    assert int(found.count) == pairs


def test_info_nce_loss_is_its_definition_in_both_directions() -> None:
    count, temperature, radius = 7, 0.1, 6.0
    first, second = unit(BATCH, count, DIM, seed=7, dim=2), unit(BATCH, count, DIM, seed=8, dim=2)
    generator = torch.Generator().manual_seed(9)
    points = tuple(torch.rand(BATCH, count, 2, generator=generator) * 20 for _ in range(2))
    matched = torch.ones(BATCH, count, dtype=torch.bool)
    matched[0, 5:] = False
    total, excluded = 0.0, 0
    for b in range(BATCH):
        real = [i for i in range(count) if matched[b, i]]
        for queries, keys, places in ((first, second, points[1]), (second, first, points[0])):
            for i in real:
                terms = []
                for j in real:
                    near = math.dist(places[b, i].tolist(), places[b, j].tolist()) < radius
                    if i != j and near:
                        excluded += 1
                        continue
                    terms.append(math.exp(float(queries[b, i] @ keys[b, j]) / temperature))
                own = math.exp(float(queries[b, i] @ keys[b, i]) / temperature)
                total += -math.log(own / sum(terms)) / 2
    assert excluded > 0
    found = info_nce_loss(first, second, points, matched, temperature, radius)
    assert float(found.total) == pytest.approx(total, rel=1e-5)
    assert int(found.count) == int(matched.sum())


def test_losses_of_nothing_valid_are_zero_with_a_gradient() -> None:
    nothing = torch.zeros(BATCH, ROWS, COLUMNS, dtype=torch.bool)
    logits = torch.randn(BATCH, 65, ROWS, COLUMNS, requires_grad=True)
    descriptors = torch.randn(BATCH, 4, DIM, requires_grad=True)
    places = torch.zeros(BATCH, 4, 2)
    none = torch.zeros(BATCH, 4, dtype=torch.bool)
    shares = [
        detector_loss(logits, torch.zeros_like(logits), nothing),
        info_nce_loss(descriptors, descriptors, (places, places), none, 0.1, 8.0),
    ]
    for share in shares:
        share.total.backward()
        assert share.total.item() == 0 and int(share.count) == 0
    assert torch.isfinite(descriptors.grad).all() and torch.isfinite(logits.grad).all()
