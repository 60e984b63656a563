"""What the layers of a user's own problem have in common: where they start, how they are solved and differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import optree
from torch import nn

from bigrad.calculus import eager
from bigrad.certificate import Certificate, OnFailure, check_on_failure
from bigrad.gradients import GradientRule, Implicit, WarmStart
from bigrad.solvers import Reading, Solver
from bigrad.tree import tensors_of


class Solved(nn.Module):
    """A layer whose output solves a problem of the user's.

    Attributes:
        certificate: how the last eager call ended.
        word: the attribute that holds the user's function.
        reading: what reads it.
        default: what solves where nothing is said.
        options: what the reading is told besides.
    """

    word: ClassVar[str]
    reading: type[Reading]
    default: type[Solver]
    certificate: Certificate | None

    def __init__(
        self,
        function: Callable[..., Any],
        init: Any,
        solver: Solver | Callable[..., Any] | None,
        gradient: GradientRule | None,
        on_failure: OnFailure,
        **options: Any,
    ) -> None:
        super().__init__()
        self.options = options
        setattr(self, self.word, function)
        self.solver = self.default() if solver is None else solver
        self.gradient = Implicit() if gradient is None else gradient
        self.on_failure = check_on_failure(on_failure)
        self.certificate = None
        self._probed = False
        self._init_function = init if callable(init) else None
        leaves = [] if callable(init) else tensors_of(init, "init")
        tree: Any = () if callable(init) else init
        self._init_spec = optree.tree_structure(tree)
        self._init_count = len(leaves)
        for place, leaf in enumerate(leaves):
            # Buffers follow .to(device); where the search starts is no learnt state, so they are not saved.
            self.register_buffer(f"_init_{place}", leaf.detach(), persistent=False)

    @eager
    def forward(self, *inputs: Any, init: Any = None, warm_start: WarmStart | None = None) -> Any:
        """Solve for these inputs; ``init`` starts this one call elsewhere, ``warm_start`` where its last call ended."""
        start = self._start() if init is None else init
        reading = self.reading(getattr(self, self.word), start, inputs, probe=not self._probed, **self.options)
        result, self.certificate = reading.solve(self.solver, self.gradient, self.on_failure, warm_start)
        self._probed = not reading.probe
        return result

    def _start(self) -> Any:
        if self._init_function is not None:
            return self._init_function
        leaves = [self.get_buffer(f"_init_{place}") for place in range(self._init_count)]
        return optree.tree_unflatten(self._init_spec, leaves)

    def extra_repr(self) -> str:
        """What repr shows of the settings."""
        function = getattr(self, self.word)
        name = "" if isinstance(function, nn.Module) else f"{getattr(function, '__name__', function)}, "
        return f"{name}solver={self.solver}, gradient={self.gradient}, on_failure={self.on_failure!r}"
