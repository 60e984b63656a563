"""Reliability tables, calibration error and contradictions against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bigrad.rlhf import Pairs, contradictions, expected_calibration_error, reliability

BELIEF = np.random.default_rng(0).random(200)
LABEL = np.random.default_rng(1).choice([0.0, 0.5, 1.0], 200)


@pytest.mark.parametrize("bins", [1, 7, 10])
def test_bins_and_error_are_those_of_a_loop(bins: int) -> None:
    table = reliability(BELIEF, LABEL, bins)
    error = 0.0
    for place in range(bins):
        inside = [i for i in range(200) if place / bins <= BELIEF[i] < (place + 1) / bins]
        expected = [len(inside), sum(BELIEF[inside]), sum(LABEL[inside])]
        np.testing.assert_allclose(table[place], expected)
        if inside:
            error += len(inside) / 200 * abs(np.mean(BELIEF[inside]) - np.mean(LABEL[inside]))
    found = expected_calibration_error(table)
    assert found == pytest.approx(error)
    assert bins == 1 or error > 0.1


def test_certain_beliefs_have_a_bin() -> None:
    table = reliability(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    assert table[0].tolist() == [1, 0, 0]
    assert table[-1].tolist() == [1, 1, 1]
    assert expected_calibration_error(table) == 0


def test_beliefs_that_say_what_happens_are_calibrated_and_bold_ones_are_not() -> None:
    random = np.random.default_rng(2)
    belief = random.random(100_000)
    label = (random.random(100_000) < belief).astype(float)
    bold = 1 / (1 + (1 / belief - 1) ** 3)
    right, wrong = (expected_calibration_error(reliability(p, label)) for p in (belief, bold))
    assert right is not None
    assert wrong is not None
    assert right < 0.01 < 0.1 < wrong


def test_tables_add() -> None:
    parts = reliability(BELIEF[:50], LABEL[:50]) + reliability(BELIEF[50:], LABEL[50:])
    np.testing.assert_allclose(parts, reliability(BELIEF, LABEL))


def test_without_a_pair_there_is_no_error() -> None:
    assert expected_calibration_error(reliability(np.zeros(0), np.zeros(0))) is None


def shown(sides: list[tuple[int, int]]) -> Pairs:
    """Pairs of the segments with these numbers."""
    generator = torch.Generator().manual_seed(0)
    observation, action = (torch.randn(9, 4, size, generator=generator) for size in (2, 1))
    observation[8, 2:] = torch.nan  # one that is padded
    chosen = torch.tensor(sides, dtype=torch.long).reshape(-1, 2)
    return Pairs(observation[chosen], action[chosen], np.zeros((len(sides), 2)))


@pytest.mark.parametrize(
    ("sides", "label", "expected"),
    [
        ([], [], 0),
        ([(0, 1), (2, 3)], [1.0, 0.0], 0),
        ([(0, 1), (0, 1)], [1.0, 1.0], 0),
        ([(0, 1), (0, 1)], [1.0, 0.0], 1),
        ([(0, 1), (1, 0)], [1.0, 0.0], 0),
        ([(0, 1), (1, 0)], [1.0, 1.0], 1),
        ([(0, 1), (0, 1)], [1.0, 0.5], 0),
        ([(0, 1), (1, 2), (2, 0)], [1.0, 1.0, 1.0], 0),  # a circle is no pair preferred both ways
        ([(0, 1), (0, 1), (1, 0), (2, 3), (3, 2), (4, 4)], [1.0, 0.0, 1.0, 0.8, 0.9, 1.0], 2),
        ([(0, 8), (8, 0)], [0.0, 0.0], 1),
    ],
)
def test_contradictions_are_counted_by_pair(sides: list[tuple[int, int]], label: list[float], expected: int) -> None:
    assert contradictions(shown(sides), np.array(label)) == expected
