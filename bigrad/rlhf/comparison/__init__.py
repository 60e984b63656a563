"""Methods, teachers and labels compared on paired seeds, in parallel processes, with intervals."""

from ..agents import methods_for
from ..settings import METHODS
from ..snapshot import write_atomically
from .aggregates import FEWEST, Estimate, aggregate, band, difference, improvement
from .judgement import Judgement, judge
from .lock import held
from .outcome import Outcome, Outcomes, against_labels, against_steps
from .plan import TEACHERS, Run, Task, Variant, others, plan
from .report import as_markdown, write_records, write_report
from .workers import environment, failure, work, workers_on

__all__ = [
    "FEWEST",
    "METHODS",
    "TEACHERS",
    "Estimate",
    "Judgement",
    "Outcome",
    "Outcomes",
    "Run",
    "Task",
    "Variant",
    "against_labels",
    "against_steps",
    "aggregate",
    "as_markdown",
    "band",
    "difference",
    "environment",
    "failure",
    "held",
    "improvement",
    "judge",
    "methods_for",
    "others",
    "plan",
    "work",
    "workers_on",
    "write_atomically",
    "write_records",
    "write_report",
]
