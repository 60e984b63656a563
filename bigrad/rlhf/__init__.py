"""The attic: preferences, a reward model and a policy, on gymnasium and stable-baselines3."""

try:
    import gymnasium  # noqa: F401  # named in the error below if it is what is missing
    import safetensors  # noqa: F401
    import stable_baselines3  # noqa: F401
except ImportError as error:
    from ..errors import MissingPackage

    raise MissingPackage(error.name or "stable_baselines3", "rl", "bigrad.rlhf") from error

from .ceilings import Ceiling, ceiling_of
from .preferences import Pairs, PreferenceStore
from .progress import print_result
from .replay import RelabelledReplayBuffer
from .response import ResponseSettings, response_term, score_weights, segment_losses
from .result import Result
from .reward_model import RewardEnsemble
from .settings import METHODS, Settings
from .snapshot import load_tree, save_tree
from .teacher import SyntheticTeacher, Teacher
from .trainer import PreferenceTrainer
from .upper_level import UpperStep, draw_pairs, upper_step

__all__ = [
    "METHODS",
    "Ceiling",
    "Pairs",
    "PreferenceStore",
    "PreferenceTrainer",
    "RelabelledReplayBuffer",
    "ResponseSettings",
    "Result",
    "RewardEnsemble",
    "Settings",
    "SyntheticTeacher",
    "Teacher",
    "UpperStep",
    "ceiling_of",
    "draw_pairs",
    "load_tree",
    "print_result",
    "response_term",
    "save_tree",
    "score_weights",
    "segment_losses",
    "upper_step",
]
