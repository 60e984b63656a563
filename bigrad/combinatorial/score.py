"""The score rule: the derivative of an average over noise, from the noise's density."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .rule import Rule, Sample


@dataclass(frozen=True)
class Score(Rule):
    r"""The unbiased :math:`\frac1K \sum_k s(Z_k) (\langle Y_k, g \rangle - b_k)` with the score :math:`s` of the noise,
    :math:`Z_k/\sigma` for normal noise.

    Attributes:
        leave_one_out: the baseline :math:`b_k` is the mean of the other samples' :math:`\langle Y_j, g \rangle`, which
            takes away variance and no accuracy; else it is zero.
    """

    leave_one_out: bool = True
    remedy = "the samples all have one solution: raise the noise's scale, or samples"

    def pull(self, sample: Sample, cotangent: Tensor) -> Tensor:
        """The mean of score times reward."""
        assert sample.noise is not None
        assert sample.drawn is not None
        rewards = sample.inner(sample.points, cotangent)
        if self.leave_one_out:
            count = rewards.shape[0]
            rewards = (rewards - rewards.mean(0)) * (count / (count - 1))
        return (sample.noise.score(sample.cost, sample.drawn, sample.sign) * sample.spread(rewards)).mean(0)
