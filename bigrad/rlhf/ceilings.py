"""What a random policy and a learner of the true reward reach, shipped as data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Ceiling:
    """The two ends of the scale on which runs are measured, both means over episodes of the true return."""

    random_return: float
    ceiling_return: float

    def share(self, true_return: float) -> float:
        """How far a return is on the way from random to the ceiling: 0 to 1, a little more where it is better."""
        return (true_return - self.random_return) / (self.ceiling_return - self.random_return)


def ceiling_of(env: str) -> Ceiling | None:
    """The shipped ceiling of an environment, ``None`` where none was measured."""
    content = json.loads(resources.files(__package__).joinpath("ceilings.json").read_text())
    entry = content.get(env)
    return None if entry is None else Ceiling(entry["random_return"], entry["ceiling_return"])
