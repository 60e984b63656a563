"""Acting at random: the lower end of the scale."""

from __future__ import annotations

from .method import Method


class Random(Method):
    """Draws every action evenly from the action space and learns nothing; no label is asked for."""

    def begin(self) -> None:
        """The warm-up lasts as long as the run, and no action persists."""
        self.agent.learning_starts = self.settings.steps
        self.agent.change_action = 1.0
