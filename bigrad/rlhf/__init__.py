"""The attic: preferences, a reward model and a policy, on gymnasium and stable-baselines3."""

try:
    import gymnasium  # noqa: F401  # named in the error below if it is what is missing
    import safetensors  # noqa: F401
    import sb3_contrib  # noqa: F401
    import stable_baselines3  # noqa: F401
except ImportError as error:
    from ..errors import MissingPackage

    raise MissingPackage(error.name or "stable_baselines3", "rl", "bigrad.rlhf") from error

from .calibration import contradictions, expected_calibration_error, reliability
from .ceilings import Ceiling, ceiling_of
from .critic import Features
from .critics_response import critics_term
from .environment_state import read_environment, write_environment
from .methods import PBRL, BentReward, of_fixed_scale, value_gap
from .people import Film, LabelQueue, People
from .people.desk import LabelDesk
from .picture_archive import PictureArchive
from .picture_reward import PictureEnsemble
from .preferences import Pairs, PreferenceStore
from .preset import preset_names, read_preset
from .progress import print_result
from .replay import RelabelledReplayBuffer
from .response import ResponseSettings, Shown, response_term, score_weights, segment_losses
from .result import Result
from .reward_model import RewardEnsemble
from .schedule import LABEL_SCHEDULES, cumulative_weights
from .selection import SELECTIONS, farthest_first, select
from .settings import AFTER_END, AGENTS, METHODS, RESPONSES, UNSERVED, Settings
from .snapshot import load_tree, save_tree
from .soft_actor_critic import SoftActorCritic
from .soft_dqn import SoftDQN
from .soft_tqc import SoftTQC
from .teacher import ReturnScale, StepTeacher, SyntheticTeacher, Teacher
from .trace_response import rollout_term, trace_term
from .trainer import PreferenceTrainer
from .upper_level import UpperStep, batches, draw_pairs, response_gradient, signal_share, totals_at, upper_step

__all__ = [
    "AFTER_END",
    "AGENTS",
    "LABEL_SCHEDULES",
    "METHODS",
    "PBRL",
    "RESPONSES",
    "SELECTIONS",
    "UNSERVED",
    "BentReward",
    "Ceiling",
    "Features",
    "Film",
    "LabelDesk",
    "LabelQueue",
    "Pairs",
    "People",
    "PictureArchive",
    "PictureEnsemble",
    "PreferenceStore",
    "PreferenceTrainer",
    "RelabelledReplayBuffer",
    "ResponseSettings",
    "Result",
    "ReturnScale",
    "RewardEnsemble",
    "Settings",
    "Shown",
    "SoftActorCritic",
    "SoftDQN",
    "SoftTQC",
    "StepTeacher",
    "SyntheticTeacher",
    "Teacher",
    "UpperStep",
    "batches",
    "ceiling_of",
    "contradictions",
    "critics_term",
    "cumulative_weights",
    "draw_pairs",
    "expected_calibration_error",
    "farthest_first",
    "load_tree",
    "of_fixed_scale",
    "preset_names",
    "print_result",
    "read_environment",
    "read_preset",
    "reliability",
    "response_gradient",
    "response_term",
    "rollout_term",
    "save_tree",
    "score_weights",
    "segment_losses",
    "select",
    "signal_share",
    "totals_at",
    "trace_term",
    "upper_step",
    "value_gap",
    "write_environment",
]
