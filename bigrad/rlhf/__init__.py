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
from .result import Result
from .reward_model import RewardEnsemble
from .settings import METHODS, Settings
from .teacher import SyntheticTeacher, Teacher
from .trainer import PreferenceTrainer

__all__ = [
    "METHODS",
    "Ceiling",
    "Pairs",
    "PreferenceStore",
    "PreferenceTrainer",
    "Result",
    "RewardEnsemble",
    "Settings",
    "SyntheticTeacher",
    "Teacher",
    "ceiling_of",
    "print_result",
]
