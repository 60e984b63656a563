"""What a run is: everything needed to start it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import InputError, RunError, UnsupportedError
from .schedule import LABEL_SCHEDULES, cumulative_weights
from .selection import SELECTIONS

METHODS = {
    "sobirl": "preferences, and the policy's response to the reward model (SoftResponse)",
    "drlhf": "preferences alone: no response term",
    "pbrl": "preferences, and a penalty on what the policy gives away to a second one that answers best",
    "hpgd": "preferences, and the response from rollouts that are independent of the losses",
    "sac": "the true reward: what a learner without preferences reaches",
    "softdqn": "the same for discrete actions",
    "random": "no learning: the lower end of the scale",
}
UNSERVED = {
    "parl": "it takes the Hessian of the policy's return in all of its parameters, thousands of them, whose "
    "pseudo-inverse explodes as the temperature falls: choose sobirl, which estimates the same vector without it, or "
    "bigrad.mdp.PARL for a process with a table"
}
RESPONSES = {
    "critic": "from a least-squares critic of the whole buffer",
    "critics": "from two such critics, of the rewards and of the losses, over fresh actions",
    "trace": "along the policy's last paths, with a learnt advantage of the losses",
}
AGENTS = {
    "auto": "sac for continuous actions, softdqn for discrete ones",
    "sac": "soft actor-critic",
    "tqc": "truncated quantile critics",
    "softdqn": "a Q-network whose policy is the softmax of its values",
}

AFTER_END = ("zero", "absorb", "exclude")
_CHOICES = {
    "method": METHODS,
    "agent": AGENTS,
    "after_end": AFTER_END,
    "selection": SELECTIONS,
    "label_schedule": LABEL_SCHEDULES,
    "response": RESPONSES,
}
# What runs of bigrad 0.1 did not write down: they had the defaults, but for steps on all pairs with a fresh response.
_LATER = (
    *("envs", "env_processes", "signed_rewards", "normalise", "learn_temperature", "least_temperature"),
    *("update_every", "buffer", "upper_batch", "response_every", "response_shrink", "response_from"),
)
_KINDS = {str: "a string", int: "a whole number", float: "a number", bool: "True or False"}


@dataclass(frozen=True)
class Settings:
    """Every number of a run; the defaults learn Pendulum-v1 in 8,000 steps.

    Attributes:
        env: a registered gymnasium environment; observations are vectors or pictures.
        method: see METHODS; "sac" and "softdqn" learn from the true reward.
        steps: environment steps, of all environments together.
        labels: comparisons asked of the teacher.
        seed: of everything.
        warm_up: steps of random behaviour before the first labels.
        first_share: share of the labels that is spent on the warm-up.
        rounds: how many times labels are asked for after that.
        label_until: share of the steps by which the last label is given (a little later in runs of few steps).
        upper_until: share of the steps by which the last upper step is taken.
        on_policy_steps: steps before each round during which the policy stays as it is, for the response term.
        segment: steps of a segment.
        after_end: what a segment holds after its episode has ended by itself (not by a time limit): "zero" rewards,
            its last step again and again ("absorb"), or no segment reaches that far ("exclude").
        selection: which pairs are asked about after the warm-up, see :func:`select`.
        label_schedule: how labels are spread over the rounds, see :func:`cumulative_weights`.
        first_upper_steps, upper_steps: steps of the reward model after the warm-up and in each later round.
        upper_batch: labelled pairs that such a step is taken on.
        members, width: networks of the reward model, and their hidden units.
        reward_step, reward_decay: step size and weight decay of the reward model's AdamW.
        response: how sobirl estimates its response term, "critic", "critics" or "trace"; see RESPONSES.
        horizon: how many steps after an action count in it; 0 is all of them, and 1 the published shortcut, which is
            the mean over fresh actions exactly with "critic".
        penalty: of pbrl; its bias falls as one over it.
        response_from: the step from which the response term is on; 0: once the reward model has been fitted to labels.
        response_weight: factor of the response term (pbrl: of the penalty); 1 is the hyper-gradient's own scale.
        response_limit: the largest norm of the response term over that of the direct term.
        response_shrink: whether the response term is shortened by how much of it is signal; see :func:`signal_share`.
        response_every: upper steps after which the response term is computed anew, at the model as it then is.
        opponents, transitions, draws, ridge: of the response term, see ResponseSettings.
        envs: environments that are stepped together; the agent is updated as often for each step.
        env_processes: whether each of them has a process of its own; a run that goes on then begins new episodes.
        signed_rewards: whether learner and teacher are given the signs of rewards, as is usual for Atari games; the
            returns that are written down are the true ones.
        normalise: whether the agent's networks see observations of mean 0 and deviation 1; rewards stay as they are.
        agent: who learns the policy: "auto", "sac", "tqc" or "softdqn".
        lr, batch, units, discount, temperature: of the agent.
        learn_temperature: whether SAC or TQC adapt the temperature, which then is where it begins.
        least_temperature: it is kept above; the response term carries its inverse.
        update_every: steps of each environment between the agent's updates.
        buffer: steps that are kept; 0 keeps all.
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
    after_end: str = "zero"
    selection: str = "uniform"
    label_schedule: str = "constant"
    first_upper_steps: int = 300
    upper_steps: int = 60
    upper_batch: int = 32
    members: int = 3
    width: int = 64
    reward_step: float = 3e-3
    reward_decay: float = 1e-4
    response: str = "critic"
    horizon: int = 0
    penalty: float = 10.0
    response_from: int = 0
    response_weight: float = 1.0
    response_limit: float = 0.1
    response_every: int = 10
    response_shrink: bool = False
    opponents: int = 256
    transitions: int = 4096
    draws: int = 8
    ridge: float = 1e-3
    envs: int = 1
    env_processes: bool = False
    signed_rewards: bool = False
    normalise: bool = False
    agent: str = "auto"
    lr: float = 1e-3
    batch: int = 64
    units: int = 64
    discount: float = 0.98
    temperature: float = 0.1
    learn_temperature: bool = False
    least_temperature: float = 0.01
    update_every: int = 1
    buffer: int = 0
    episodes: int = 100

    def __post_init__(self) -> None:
        for field in fields(self):
            kind, value = type(field.default), getattr(self, field.name)
            fits = isinstance(value, (int, float) if kind is float else kind)
            if not fits or isinstance(value, bool) is not (kind is bool):
                raise InputError(f"{field.name} is {value!r}; wanted {_KINDS[kind]}")
        if self.method in UNSERVED:
            raise UnsupportedError(f"method {self.method!r} is not served in a run: {UNSERVED[self.method]}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}; wanted one of {', '.join(known)}")
        whole = ("steps", "rounds", "segment", "members", "width", "batch", "units", "episodes", "draws", "opponents")
        upper = ("first_upper_steps", "upper_steps", "upper_batch", "response_every", "transitions")
        for name in (*whole, *upper, "warm_up", "on_policy_steps", "envs", "update_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; wanted at least 1")
        if self.labels < 2 and self.learns_reward:
            raise InputError(f"labels is {self.labels}; {self.method} learns from labels: wanted at least 2")
        for name in ("first_share", "label_until", "upper_until"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; wanted a share between 0 and 1")
        if not 0 <= self.discount < 1:
            raise InputError(f"discount is {self.discount}; wanted 0 <= discount < 1")
        last = self.schedule()[-1] if self.learns_reward else self.steps
        if not 0 <= self.response_from <= last:
            raise InputError(
                f"response_from is {self.response_from}, and the last upper steps are due at {last}; wanted a step "
                "between 0 and that"
            )
        if self.horizon < 0:
            raise InputError(f"horizon is {self.horizon}; wanted a number of steps, or 0 for all of them")
        for name in ("temperature", "least_temperature", "lr", "reward_step", "penalty"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; wanted a positive finite number")
        for name in ("reward_decay", "ridge", "response_weight", "response_limit"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} is {getattr(self, name)}; wanted a finite number, at least 0")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; wanted 0 <= seed < 2**32")
        if self.steps % self.stride:
            raise InputError(
                f"steps is {self.steps}, envs {self.envs} and update_every {self.update_every}; wanted a multiple of "
                f"{self.stride} steps"
            )
        if self.buffer != 0 and self.buffer < self.segment * self.envs:
            raise InputError(
                f"buffer is {self.buffer}; wanted at least {self.segment * self.envs}, a segment of each environment, "
                "or 0 for all steps"
            )
        if self.learn_temperature and self.temperature < self.least_temperature:
            raise InputError(f"temperature is {self.temperature}; wanted at least {self.least_temperature} to begin at")
        if self.learn_temperature and self.method == "pbrl":
            raise InputError("pbrl compares two policies of one temperature; wanted learn_temperature to be false")
        if self.learns_reward and self.steps < self.warm_up + self.rounds * self.stride:
            raise InputError(
                f"steps is {self.steps}, warm_up {self.warm_up} and rounds {self.rounds}; wanted more steps than the "
                "warm-up takes, and one for each round after it"
            )

    @property
    def stride(self) -> int:
        """Steps of all environments between updates."""
        return self.envs * self.update_every

    @property
    def learns_reward(self) -> bool:
        """Whether there is a reward model at all."""
        return self.method not in ("sac", "softdqn", "random")

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
        given = [0.0, *cumulative_weights(self.label_schedule, self.schedule()[1 : self.rounds + 1], self.steps)]
        return max(2, round(self.labels * (self.first_share + (1 - self.first_share) * given[place] / given[-1])))

    def to_json(self) -> dict[str, Any]:
        """As plain numbers and strings."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> Settings:
        """From what :meth:`to_json` gave.

        Raises:
            RunError: it is something else.
        """
        if not isinstance(content, dict):
            raise RunError(f"the settings are not those of this version of bigrad: {type(content).__name__}")
        defaults = {field.name: field.default for field in fields(cls)}
        former = {"upper_batch": content.get("labels") or 1, "response_every": 1}
        content = {name: defaults[name] for name in _LATER} | former | content
        if odd := sorted(map(str, set(content) ^ set(defaults))):
            raise RunError(f"the settings are not those of this version of bigrad: {', '.join(odd[:5])}")
        try:
            return cls(**content)
        except InputError as error:
            raise RunError(f"the settings make no run: {error}") from error
