"""What a certificate says, how it fails, and how it travels."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor

from bigrad import BigradError, Certificate, SolveError, SolveWarning, Status, errors
from bigrad.certificate import check_on_failure
from bigrad.linear import CG, Operator

D = torch.float64
KINDS = {
    Status.MAX_STEPS: (errors.NotConverged, "max_steps"),
    Status.STALLED: (errors.Stalled, "differentiable"),
    Status.NON_FINITE: (errors.Diverged, "NaN"),
    Status.INDEFINITE: (errors.Indefinite, "ridge"),
    Status.SINGULAR: (errors.Singular, "ridge"),
    Status.INFEASIBLE: (errors.Infeasible, "slack"),
    Status.UNBOUNDED: (errors.Unbounded, "bound the variables"),
}


def certificate(*codes: Status, found: float = 0.125, wanted: float = 1e-10) -> Certificate:
    """One problem for each code, or a single one without a batch."""
    status = torch.tensor(codes) if len(codes) > 1 else torch.tensor(codes[0])
    numbers = torch.full(status.shape, found, dtype=D)
    return Certificate("argmin", status, numbers, torch.full_like(numbers, wanted), torch.full_like(status, 17))


def test_every_status_has_failed_or_has_an_answer() -> None:
    assert {status for status in Status if status.failed} == set(KINDS)
    assert {Status.CONVERGED, Status.ROUNDING_FLOOR} == set(Status) - set(KINDS)


@pytest.mark.parametrize(("status", "kind", "remedy"), [(status, *rest) for status, rest in KINDS.items()])
def test_a_failure_names_the_number_the_tolerance_and_the_remedy(
    status: Status, kind: type[SolveError], remedy: str
) -> None:
    with pytest.raises(kind) as caught:
        certificate(status).enforce("raise")
    message = str(caught.value)
    for part in ("argmin", "0.125", "1e-10", "17 steps", "Remedy:", remedy):
        assert part in message
    assert "problem" not in message.split("Remedy")[0]
    assert int(caught.value.certificate.status) == status
    assert isinstance(caught.value, BigradError)
    assert isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize("status", [Status.CONVERGED, Status.ROUNDING_FLOOR])
def test_an_answer_raises_nothing_and_has_a_message_all_the_same(status: Status) -> None:
    for mode in ("raise", "warn", "ignore"):
        certificate(status).enforce(mode)  # type: ignore[arg-type]  # a literal
    assert status.name in certificate(status).message()


def test_warn_warns_once_and_ignore_is_silent() -> None:
    failed = certificate(Status.MAX_STEPS)
    with pytest.warns(SolveWarning, match="wanted 1e-10") as caught:
        failed.enforce("warn")
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        failed.enforce("ignore")


def test_the_worst_problem_of_a_batch_speaks() -> None:
    batch = certificate(Status.CONVERGED, Status.STALLED, Status.INDEFINITE, Status.ROUNDING_FLOOR)
    assert batch.failed.tolist() == [False, True, True, False]
    with pytest.raises(errors.Indefinite, match="problem 2 of 4"):
        batch.enforce("raise")


def test_a_batch_of_no_problems_has_not_failed() -> None:
    empty = torch.zeros(0, dtype=D)
    Certificate("argmin", empty.long(), empty, empty, empty.long()).enforce("raise")


@pytest.mark.parametrize("mode", ["Raise", "", None, "error"])
def test_only_three_modes_exist(mode: str) -> None:
    with pytest.raises(errors.InputError, match="on_failure is"):
        check_on_failure(mode)


def test_a_certificate_holds_no_graph() -> None:
    number = torch.ones((), dtype=D, requires_grad=True)
    made = Certificate("argmin", torch.tensor(0), number * 2, number * 3, torch.tensor(1))
    assert not made.stationarity.requires_grad
    assert not made.tolerance.requires_grad


def spd(values: Tensor, seed: int = 0) -> Tensor:
    """A symmetric matrix ``(*batch, n, n)`` with these eigenvalues."""
    draw = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(*values.shape, values.shape[-1], generator=draw, dtype=D))
    return (basis * values.unsqueeze(-2)) @ basis.mT


def solved(matrix: Tensor, b: Tensor) -> Certificate:
    return CG().solve(Operator(lambda u: (matrix @ u.unsqueeze(-1)).squeeze(-1), symmetric=True), b)[1]


@pytest.mark.parametrize("kappa", [1.0, 10.0, 1e3, 1e6])
def test_the_condition_estimate_is_close_and_from_below(kappa: float) -> None:
    values = torch.logspace(0, 1, 12, base=kappa, dtype=D)
    matrix = spd(3 * values)
    estimate = solved(matrix, torch.ones(12, dtype=D)).condition
    assert estimate is not None
    assert estimate.shape == ()
    assert 0.9 * kappa <= float(estimate) <= 1.001 * kappa


def test_the_condition_estimate_of_each_problem_of_a_batch() -> None:
    kappa = torch.tensor([1.0, 2.0, 30.0, 1e4], dtype=D)
    values = kappa[:, None] ** torch.linspace(0, 1, 8, dtype=D)
    scale = torch.tensor([1e-6, 1.0, 1e6, 1e2], dtype=D)
    matrix, b = spd(values * scale[:, None]), torch.ones(4, 8, dtype=D)
    estimate = solved(matrix, b).condition
    assert estimate is not None
    torch.testing.assert_close(estimate, kappa, rtol=0.05, atol=0)
    alone = [solved(matrix[k], b[k]).condition for k in range(4)]
    torch.testing.assert_close(estimate, torch.stack([one for one in alone if one is not None]), rtol=1e-6, atol=0)


def test_the_condition_is_unknown_until_something_measured_it() -> None:
    forward = certificate(Status.CONVERGED)
    assert forward.condition is None
    assert forward.adjoint_residual is None
    forward.adjoint = solved(spd(torch.tensor([1.0, 5.0], dtype=D)), torch.ones(2, dtype=D))
    assert forward.condition is not None
    assert abs(float(forward.condition) - 5) < 1e-6
    assert forward.adjoint_residual is not None
    assert float(forward.adjoint_residual) < 1e-11


def test_the_condition_of_a_system_that_took_no_step_is_one() -> None:
    assert float(solved(torch.eye(3, dtype=D), torch.zeros(3, dtype=D)).condition) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_certificates_and_errors_travel(travel: object) -> None:
    original = certificate(Status.CONVERGED, Status.STALLED)
    original.adjoint = solved(spd(torch.tensor([1.0, 5.0], dtype=D)), torch.ones(2, dtype=D))
    arrived = travel(original)  # type: ignore[operator]
    assert torch.equal(arrived.status, original.status)
    assert torch.equal(arrived.tolerance, original.tolerance)
    assert torch.equal(arrived.condition, original.condition)
    error = errors.Stalled(original.message(), original)
    again = travel(error)  # type: ignore[operator]
    assert type(again) is errors.Stalled
    assert str(again) == str(error)
    assert torch.equal(again.certificate.status, original.status)
    missing = travel(errors.MissingPackage("rich", "cli", "drawing"))  # type: ignore[operator]
    assert str(missing) == 'rich is needed for drawing and is not installed: pip install "bigrad[cli]"'
    assert (missing.package, missing.extra) == ("rich", "cli")


def test_every_error_is_caught_by_its_python_kin() -> None:
    kin = {errors.InputError: ValueError, errors.UnsupportedError: NotImplementedError, errors.RunError: OSError}
    kin |= {errors.MissingPackage: ImportError, SolveError: RuntimeError}
    assert all(issubclass(ours, theirs) and issubclass(ours, BigradError) for ours, theirs in kin.items())
