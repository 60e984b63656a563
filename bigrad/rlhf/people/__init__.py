"""People as teachers: the trainer's side. Their own side, the desk, is above the run's folder: see ``desk.py``."""

from .film import Film, animate
from .label_queue import LabelQueue
from .people import People

__all__ = ["Film", "LabelQueue", "People", "animate"]
