"""``python -m bigrad.rlhf.comparison FOLDER DEVICE``: the one run that ``run.json`` in the folder asks for.

A worker of ``bigrad compare``. It ends itself as Ctrl-C would, with everything on disk, once its standard input is
closed: also when whoever started it was killed.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

import torch

from ...errors import BigradError
from ..run_folder import holds_a_run
from ..teacher import SyntheticTeacher
from ..trainer import PreferenceTrainer
from .lock import held
from .plan import STEP, Run, read_run

_WAIT = 60.0  # seconds in which a worker whose parent was killed puts everything on disk


def main(folder: Path, device: str) -> None:
    """Do the run, or go on with it.

    Raises:
        BigradError: it cannot be done.
    """
    run = Run.read(folder)
    with held(folder, _WAIT):
        if run.finished:
            return
        if holds_a_run(folder):
            trainer = PreferenceTrainer.load(folder, device=device)
        else:
            teacher = SyntheticTeacher(**run.teacher) if run.teacher else None
            trainer = PreferenceTrainer(**run.settings.to_json(), teacher=teacher, device=device)
        threading.Thread(target=_show, args=(trainer, folder / STEP), daemon=True).start()
        trainer.learn(out=folder, command=read_run(folder)["command"])


def _show(trainer: PreferenceTrainer, path: Path) -> NoReturn:
    while True:
        path.write_text(str(trainer.agent.num_timesteps))
        time.sleep(1)


def _follow() -> None:
    """Interrupt the main thread once standard input ends."""
    while os.read(0, 1):
        pass
    _thread.interrupt_main()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    threading.Thread(target=_follow, daemon=True).start()
    try:
        main(Path(sys.argv[1]), sys.argv[2])
    except KeyboardInterrupt:
        sys.exit(130)
    except BigradError as error:
        sys.exit(f"bigrad: {error}")
