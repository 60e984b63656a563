"""``bigrad rlhf``: learn a reward model and a policy from preferences."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from ..errors import RunError
from ..rlhf import People, PreferenceTrainer, Settings, SyntheticTeacher, print_result

_DEFAULT = Settings()


@dataclass
class Options:
    """Learn a reward model and a policy from preferences on a gymnasium environment, and say what was reached.

    The folder of a run holds the labels, the networks, TensorBoard curves, result.json and curves.png. Ctrl-C leaves a
    run that --resume continues.
    """

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
    options = tyro.cli(Options, prog="bigrad rlhf", args=list(argv))
    torch.set_num_threads(options.threads)
    if options.resume is not None:
        folder = options.resume
        trainer = PreferenceTrainer.load(folder, device=options.device)
    else:
        folder = _fresh(options) if options.out is None else options.out
        trainer = PreferenceTrainer(
            options.env,
            method=options.method,
            teacher=_teacher(options),
            labels=options.labels,
            seed=options.seed,
            steps=options.steps,
            segment=options.segment,
            after_end=options.after_end,
            selection=options.selection,
            label_schedule=options.label_schedule,
            agent=options.agent,
            temperature=options.temperature,
            discount=options.discount,
            response_weight=options.response_weight,
            response_limit=options.response_limit,
            device=options.device,
        )
    if isinstance(trainer.teacher, People):
        print(f"People label this run with: bigrad label --run {shlex.quote(str(folder))}", file=sys.stderr)
    try:
        result = trainer.learn(progress_bar=options.progress, out=folder, command=shlex.join(["bigrad", "rlhf", *argv]))
    except KeyboardInterrupt:
        print(f"\nStopped. Continue with: bigrad rlhf --resume {shlex.quote(str(folder))}", file=sys.stderr)
        raise
    print_result(result)
    print(f"{folder}: result.json, curves.png, policy.safetensors, reward_model.safetensors, tensorboard")
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
