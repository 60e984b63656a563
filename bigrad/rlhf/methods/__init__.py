"""One file a method: what it adds to the loop that all of them share."""

from __future__ import annotations

from .chance import Random
from .hpgd import HPGD
from .method import Method
from .pbrl import PBRL, BentReward, of_fixed_scale, value_gap
from .sobirl import SoBiRL

KINDS: dict[str, type[Method]] = {
    "sobirl": SoBiRL,
    "drlhf": Method,
    "pbrl": PBRL,
    "hpgd": HPGD,
    "sac": Method,
    "softdqn": Method,
    "random": Random,
}

__all__ = ["HPGD", "KINDS", "PBRL", "BentReward", "Method", "Random", "SoBiRL", "of_fixed_scale", "value_gap"]
