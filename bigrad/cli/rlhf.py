"""``bigrad rlhf``: learn a reward model and a policy from preferences."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from ..errors import MissingPackage, RunError, UnsupportedError
from ..rlhf import People, PreferenceTrainer, Settings, SyntheticTeacher, print_result, read_preset

_DEFAULT = Settings()
FILM = "policy.webp"


@dataclass
class Options:
    """Learn a reward model and a policy from preferences on a gymnasium environment, and say what was reached.

    The folder of a run holds the labels, the networks, TensorBoard curves, result.json, curves.png and a film of the
    policy. Ctrl-C leaves a run that --resume continues.
    """

    preset: str | None = None
    """Shipped settings (beamrider, discrete-pendulum, halfcheetah, pendulum), or a YAML file of settings; other
    options override them."""
    env: str = _DEFAULT.env
    """A registered gymnasium environment; its actions are continuous and bounded, or one of several."""
    method: Literal["sobirl", "drlhf", "pbrl", "hpgd", "parl", "sac", "softdqn", "random"] = "sobirl"
    """sobirl: preferences and the policy's response to them; drlhf: no response; pbrl: a penalty instead; hpgd: the
    response from rollouts; parl: says why not; sac, and softdqn for discrete actions: the true reward (the ceiling);
    random: no learning (the floor)."""
    agent: Literal["auto", "sac", "tqc", "softdqn"] = "auto"
    """Who learns the policy; auto is sac for continuous actions and softdqn for discrete ones."""
    steps: int = _DEFAULT.steps
    """Environment steps."""
    labels: int = _DEFAULT.labels
    """Comparisons that the teacher is asked for."""
    seed: int = _DEFAULT.seed
    """Of everything."""
    out: Path | None = None
    """Folder of the run; runs/ENV-METHOD-seedSEED if left out."""
    resume: Path | None = None
    """Continue the run in this folder; every other option but --device and --threads is read from it."""
    teacher: Literal["perfect", "boltzmann", "mistake", "skip", "equal", "myopic"] = "boltzmann"
    """Who labels: B-Pref's six teachers."""
    beta: float | None = None
    """How sharply the teacher sees differences of true return, if not as it does by itself; inf never errs."""
    people: bool = False
    """Let people compare clips in a teacher's place, with `bigrad label --run FOLDER` beside the run."""
    selection: Literal[
        "uniform", "disagreement", "entropy", "k-centre", "k-centre-disagreement", "k-centre-entropy"
    ] = "uniform"
    """Which pairs are asked about after the warm-up."""
    label_schedule: Literal["constant", "decay", "increase", "hyperbolic"] = "constant"
    """How labels are spread over the rounds."""
    segment: int = _DEFAULT.segment
    """Steps of the clips that are compared."""
    after_end: Literal["zero", "absorb", "exclude"] = "zero"
    """What a clip holds after its episode has ended by itself."""
    temperature: float = _DEFAULT.temperature
    """Weight of the entropy in the agent's problem."""
    discount: float = _DEFAULT.discount
    """Of the agent's problem."""
    response_weight: float = _DEFAULT.response_weight
    """Factor of the response term; 1 is the hyper-gradient's own scale, 0 switches it off."""
    envs: int = _DEFAULT.envs
    """Environments that are stepped together."""
    env_processes: bool = _DEFAULT.env_processes
    """Give each environment a process of its own."""
    signed_rewards: bool = _DEFAULT.signed_rewards
    """Learn from the signs of rewards, as is usual for Atari games; results are measured in the true ones."""
    normalise: bool = _DEFAULT.normalise
    """Let the agent's networks see observations of mean 0 and deviation 1."""
    learn_temperature: bool = _DEFAULT.learn_temperature
    """Let SAC or TQC adapt the temperature."""
    response_from: int = _DEFAULT.response_from
    """The step from which the response term is on; 0: once the reward model has been fitted."""
    response_limit: float = _DEFAULT.response_limit
    """The largest norm of the response term over that of the direct term."""
    device: str = "auto"
    """Where the networks live, as torch names it."""
    threads: int = 1
    """Threads of torch; on few cores one is fastest."""
    progress: bool = True
    """Show a progress bar."""


def run(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    preset = _preset(argv)
    known = {field.name for field in fields(Options)}
    usual = Options(**{name: value for name, value in preset.items() if name in known})
    options = tyro.cli(Options, prog="bigrad rlhf", args=list(argv), default=usual)
    torch.set_num_threads(options.threads)
    if options.resume is not None:
        folder = options.resume
        trainer = PreferenceTrainer.load(folder, device=options.device)
    else:
        folder = _fresh(options) if options.out is None else options.out
        chosen = preset | {
            field.name: getattr(options, field.name) for field in fields(Settings) if field.name in known
        }
        trainer = PreferenceTrainer(teacher=_teacher(options), device=options.device, **chosen)
    if isinstance(trainer.teacher, People):
        print(f"People label this run with: bigrad label --run {shlex.quote(str(folder))}", file=sys.stderr)
    try:
        result = trainer.learn(progress_bar=options.progress, out=folder, command=shlex.join(["bigrad", "rlhf", *argv]))
    except KeyboardInterrupt:
        print(f"\nStopped. Continue with: bigrad rlhf --resume {shlex.quote(str(folder))}", file=sys.stderr)
        raise
    print_result(result)
    parts = "result.json, curves.png, policy.safetensors, reward_model.safetensors, tensorboard"
    try:
        trainer.film(folder / FILM)
        parts = f"{FILM}, {parts}"
    except (MissingPackage, UnsupportedError) as error:
        print(f"No film of the policy: {error}", file=sys.stderr)
    print(f"{folder}: {parts}")
    return 0


def _teacher(options: Options) -> SyntheticTeacher | People:
    if options.people:
        return People()
    changes: dict[str, Any] = {} if options.beta is None else {"beta": options.beta}
    return SyntheticTeacher.named(options.teacher, **changes)


def _fresh(options: Options) -> Path:
    """The first unused folder for a run like this."""
    name = f"{options.env.replace('/', '-')}-{options.method}-seed{options.seed}"
    for number in range(1, 1000):
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            return folder
    raise RunError(f"runs/ holds a thousand runs named {name}: give --out")


def _preset(argv: Sequence[str]) -> dict[str, Any]:
    """The settings of the preset that is asked for; what overrides them is read afterwards."""
    given = [word for pair in pairwise([*argv, ""]) for word in _named(*pair)]
    return read_preset(given[-1]) if given else {}


def _named(option: str, value: str) -> list[str]:
    if option == "--preset":
        return [value]
    return [option.removeprefix("--preset=")] if option.startswith("--preset=") else []
