"""What a run is: everything needed to start it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import InputError, RunError

METHODS = {
    "sobirl": "preferences, and the policy's response to the reward model (SoftResponse)",
    "drlhf": "preferences alone: no response term",
    "sac": "the true reward: what a learner without preferences reaches",
}

_KINDS = {str: "a string", int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Settings:
    """Every number of a run; the defaults learn Pendulum-v1 in 8,000 steps.

    Attributes:
        env: a registered gymnasium environment with continuous actions.
        method: "sobirl", "drlhf" or "sac".
        steps: environment steps.
        labels: comparisons asked of the teacher.
        seed: of everything.
        warm_up: steps of random behaviour before the first labels.
        first_share: share of the labels that is spent on the warm-up.
        rounds: how many times labels are asked for after that.
        label_until: share of the steps by which the last label is given (a little later in runs of few steps).
        upper_until: share of the steps by which the last upper step is taken.
        on_policy_steps: steps before each round during which the policy stays as it is, for the response term.
        segment: steps of a segment.
        first_upper_steps, upper_steps: steps of the reward model after the warm-up and in each later round.
        members, width: networks of the reward model, and their hidden units.
        reward_step, reward_decay: step size and weight decay of the reward model's AdamW.
        response_weight: factor of the response term; 1 is the hyper-gradient's own scale.
        response_limit: the largest norm of the response term over that of the direct term.
        opponents, transitions, draws, ridge: of the response term, see ResponseSettings.
        lr, batch, units, discount, temperature: of the agent.
        episodes: of the evaluation at the end.
    """

    env: str = "Pendulum-v1"
    method: str = "sobirl"
    steps: int = 8_000
    labels: int = 200
    seed: int = 0
    warm_up: int = 1_000
    first_share: float = 0.4
    rounds: int = 10
    label_until: float = 0.6
    upper_until: float = 0.95
    on_policy_steps: int = 400
    segment: int = 25
    first_upper_steps: int = 300
    upper_steps: int = 60
    members: int = 3
    width: int = 64
    reward_step: float = 3e-3
    reward_decay: float = 1e-4
    response_weight: float = 1.0
    response_limit: float = 0.5
    opponents: int = 256
    transitions: int = 4096
    draws: int = 8
    ridge: float = 1e-3
    lr: float = 1e-3
    batch: int = 64
    units: int = 64
    discount: float = 0.98
    temperature: float = 0.1
    episodes: int = 100

    def __post_init__(self) -> None:
        for field in fields(self):
            kind, value = type(field.default), getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
                raise InputError(f"{field.name} is {value!r}; wanted {_KINDS[kind]}")
        if self.method not in METHODS:
            raise InputError(f"method is {self.method!r}; wanted one of {', '.join(METHODS)}")
        whole = ("steps", "rounds", "segment", "members", "width", "batch", "units", "episodes", "draws", "opponents")
        for name in (*whole, "warm_up", "first_upper_steps", "upper_steps", "transitions", "on_policy_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; wanted at least 1")
        if self.labels < 2 and self.learns_reward:
            raise InputError(f"labels is {self.labels}; {self.method} learns from labels: wanted at least 2")
        for name in ("first_share", "label_until", "upper_until"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; wanted a share between 0 and 1")
        if not 0 <= self.discount < 1:
            raise InputError(f"discount is {self.discount}; wanted 0 <= discount < 1")
        for name in ("temperature", "lr", "reward_step"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; wanted a positive finite number")
        for name in ("reward_decay", "ridge", "response_weight", "response_limit"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; wanted a finite number, at least 0")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; wanted 0 <= seed < 2**32")
        if self.learns_reward and self.steps < self.warm_up + self.rounds:
            raise InputError(
                f"steps is {self.steps}, warm_up {self.warm_up} and rounds {self.rounds}; wanted more steps than the "
                "warm-up takes, and one for each round after it"
            )

    @property
    def learns_reward(self) -> bool:
        """Whether there is a reward model at all."""
        return self.method != "sac"

    def schedule(self) -> list[int]:
        """The steps at which rounds are due: labelled ones, then upper steps alone."""
        if not self.learns_reward:
            return []
        # In a short run the warm-up takes most of that share: the rounds then have half of it of what is left.
        left = max(self.rounds, int(self.label_until * (self.steps - self.warm_up)) // 2)
        last = max(self.warm_up + left, int(self.label_until * self.steps))
        interval = max(1, (last - self.warm_up) // self.rounds)
        labelled = [self.warm_up + interval * k for k in range(self.rounds + 1)]
        end = int(self.upper_until * self.steps)
        return labelled + list(range(labelled[-1] + interval, end + 1, interval))

    def labels_by(self, place: int) -> int:
        """How many labels are given once round ``place`` is over."""
        if place >= self.rounds:
            return self.labels
        return max(2, round(self.labels * (self.first_share + (1 - self.first_share) * place / self.rounds)))

    def to_json(self) -> dict[str, Any]:
        """As plain numbers and strings."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> Settings:
        """From what :meth:`to_json` gave.

        Raises:
            RunError: it is something else.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(content, dict) or set(content) != known:
            odd = sorted(set(content) ^ known) if isinstance(content, dict) else [type(content).__name__]
            raise RunError(f"the settings are not those of this version of bigrad: {', '.join(odd[:5])}")
        try:
            return cls(**content)
        except InputError as error:
            raise RunError(f"the settings make no run: {error}") from error
