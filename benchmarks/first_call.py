"""The first argmin and its gradient in a fresh process, and the same later on: ``python first_call.py WAY``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from statistics import median

from gradient_peers import Phases, backward_of, bare_graph, bigrad_layer, torchopt_layer
from harness import one_thread
from problems import InnerProblem, ridge_problem

WAYS: dict[str, Callable[[InnerProblem], Phases]] = {
    "bigrad": lambda problem: backward_of(bigrad_layer(problem), problem),
    "torchopt": lambda problem: backward_of(torchopt_layer(problem), problem),
    "by hand": lambda problem: bare_graph(problem, 1e-6),
}

if __name__ == "__main__":
    one_thread()
    phases = WAYS[sys.argv[1]](ridge_problem(10)[0])  # imports the package
    times = []
    for _ in range(30):
        start = time.perf_counter()
        phases["backward"](phases["prepare"](None))
        times.append(time.perf_counter() - start)
    print(json.dumps({"first": times[0], "later": median(times[10:])}))
