"""Labels under ``kill -9``: a trainer that asks, ``bigrad label`` that serves, a person who answers.

The trainer and the server are processes of their own; one of them after the other is killed at a random moment and
started again. The person goes on answering, takes answers back now and then, and keeps account of what was said to be
stored. In the end the file must hold exactly that: no label lost, none doubled, no question lost or asked twice.

Run ``python benchmarks/kill_labels.py``; it writes ``benchmarks/results/kill_labels.json`` and ends with 1 if anything
is missing. ``--kills 6 --out FILE`` is what the tests run.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from kills import report

from bigrad.cli import main as bigrad
from bigrad.rlhf import Film, LabelQueue, Pairs, PreferenceStore, Settings

RESULT = Path(__file__).resolve().parent / "results" / "kill_labels.json"
CHOICES = {"left": 0.0, "right": 1.0, "equal": 0.5, "skip": None}
KEEP_WAITING = 6


class Blinking(gymnasium.Env[Any, Any]):
    """Something to be filmed."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012  # as gymnasium declares it
    render_mode = "rgb_array"
    observation_space = action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, **settings: Any) -> tuple[Any, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 0.0, False, False, {}

    def render(self) -> Any:
        return np.random.default_rng().integers(0, 256, (32, 32, 3)).astype(np.uint8)


def forked(work: Callable[[], object], output: int | None = None) -> int:
    """Start ``work`` as a process of its own, which imports nothing anew, and return its id; it ends with 0, or 1."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if output is not None:
            os.dup2(output, 1)
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # until the process is killed
        work()
        code = 0
    finally:
        os._exit(code)


def train(folder: Path, first: int) -> None:
    """Act, ask while few questions wait, learn of the answers; what was asked carries numbers from ``first`` on.

    It is noted in a file once the store has taken it.
    """
    film = Film(Blinking())
    film.reset()
    store = PreferenceStore(folder / "labels.sqlite")
    queue = LabelQueue(store, np.random.default_rng())
    mark = first
    with (folder / f"asked-{first}").open("a", buffering=1) as asked:
        while True:
            for _ in range(10):
                film.step(np.zeros(1))
            queue.collect()
            if queue.waiting >= KEEP_WAITING:
                time.sleep(0.001)
                continue
            numbers = torch.arange(mark, mark + 2, dtype=torch.float32)
            ages = np.random.default_rng().integers(0, film.reach, (2, 2, 1)) * np.ones((1, 1, 5), int)
            observation = numbers[:, None, None, None].expand(2, 2, 5, 1)
            pairs = Pairs(observation, torch.zeros(2, 2, 5, 1), np.zeros((2, 2)))
            queue.ask(pairs, film.clips(ages), mark)
            asked.write(f"{mark} {mark + 1}\n")
            mark += 2


class Run:
    """A run's folder with its two processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "config.json").write_text(json.dumps({"settings": Settings(labels=100_000).to_json()}))
        PreferenceStore(folder / "labels.sqlite").close()
        self.lives = 0
        self.address: str | None = None
        self.processes = {"trainer": self.start("trainer"), "server": self.start("server")}

    def start(self, who: str) -> int:
        self.lives += 1
        if who == "trainer":
            first = 10_000 * self.lives
            return forked(lambda: train(self.folder, first))
        reader, writer = os.pipe()
        child = forked(lambda: bigrad(["label", "--run", str(self.folder), "--no-open"]), writer)
        os.close(writer)
        threading.Thread(target=self._listen, args=[reader], daemon=True).start()
        return child

    def kill(self, who: str) -> None:
        """Kill without a warning, and start again."""
        child = self.processes[who]
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            raise RuntimeError(f"the {who} ended by itself")
        if who == "server":
            self.address = None
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.processes[who] = self.start(who)

    def end(self) -> None:
        for child in self.processes.values():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def _listen(self, reader: int) -> None:
        with open(reader) as said:
            for line in said:
                if found := re.search(r"http://\S+", line):
                    self.address = found[0]


class Person:
    """Answers until told to stop, and remembers what was said to be stored and what may have been."""

    def __init__(self, run: Run, seed: int) -> None:
        self.run, self.random = run, random.Random(seed)
        self.stored: dict[int, str | None] = {}  # question: choice, or None where it was taken back
        self.unsure: dict[int, set[str | None]] = {}  # question: what was sent and never confirmed
        self.answers = self.undos = self.broken = self.conflicts = 0
        self.stop = False

    def work(self) -> None:
        question: int | None = None
        while not self.stop:
            address = self.run.address
            if address is None:
                time.sleep(0.002)
                continue
            try:
                if question is None:
                    question = self.call(f"{address}next?browser=one")[1]["question"]
                elif self.random.random() < 0.15 and self.stored:
                    question = self.say(address, "undo", self.random.choice(list(self.stored)[-5:]), None)
                else:
                    question = self.say(address, "answer", question, self.random.choice(list(CHOICES)))
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError):
                self.broken += 1
                question = None

    def say(self, address: str, what: str, question: int, choice: str | None) -> int | None:
        before = self.unsure.get(question, set())
        self.unsure[question] = before | {choice}
        body = {"browser": "one", "question": question} | ({} if choice is None else {"choice": choice, "seconds": 1})
        status, content = self.call(f"{address}{what}", body)
        if status == 200:
            self.stored[question] = choice
            self.unsure[question] = set()
            self.answers, self.undos = self.answers + (choice is not None), self.undos + (choice is None)
        else:
            self.unsure[question] = before  # this changed nothing; something unconfirmed did before
            self.conflicts += 1
        following: int | None = content["question"]
        return following

    def call(self, address: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, json.load(refusal)


def examine(folder: Path, person: Person) -> list[str]:
    """What is wrong with the file, in words."""
    with contextlib.closing(sqlite3.connect(folder / "labels.sqlite")) as file:
        rows = file.execute("select id, label, mirrored, answered_at, observation from preference").fetchall()
        clips = [row[0] for row in file.execute("select preference from clip")]
        sound = file.execute("pragma integrity_check").fetchone()[0]
    wrong = [] if sound == "ok" else [f"the file is damaged: {sound}"]
    marks = [int(np.frombuffer(row[4], np.float32)[0]) for row in rows]
    noted = [int(mark) for path in folder.glob("asked-*") for mark in path.read_text().split()]
    wrong += [f"question {mark} was lost" for mark in set(noted) - set(marks)]
    wrong += [f"{len(marks) - len(set(marks))} questions are there twice"] if len(set(marks)) < len(marks) else []
    wrong += ["a question has not its two clips"] if sorted(clips) != sorted([row[0] for row in rows] * 2) else []
    for question, label, mirrored, answered_at, _ in rows:
        possible = {person.stored.get(question)} | person.unsure.get(question, set())
        states = {(choice is not None, value(choice, mirrored)) for choice in possible}
        if (answered_at is not None, label) not in states:
            wrong.append(f"question {question} holds {label}; {possible} was said")
    decided = sum(row[1] is not None for row in rows)
    store = PreferenceStore(folder / "labels.sqlite")
    if (len(store.load()[1]), store.count) != (decided, sum(row[3] is not None for row in rows)):
        wrong.append("the trainer reads something else")
    store.close()
    return wrong


def value(choice: str | None, mirrored: int) -> float | None:
    """The label that a choice on the screen stands for."""
    label = CHOICES[choice] if choice else None
    return 1 - label if label is not None and mirrored else label


def measure(kills: int, seed: int) -> dict[str, Any]:
    """Kill so many times, and tell what came of it."""
    chance = random.Random(seed)
    counts = {"trainer": 0, "server": 0}
    with tempfile.TemporaryDirectory() as name:
        run = Run(Path(name))
        person = Person(run, seed)
        thread = threading.Thread(target=person.work)
        thread.start()
        try:
            for _ in range(kills):
                goal = person.answers + chance.randrange(1, 12)
                while person.answers < goal:
                    time.sleep(chance.uniform(0, 0.003))
                    if not thread.is_alive():
                        raise RuntimeError("the person was told something that makes no sense")
                who = chance.choice(sorted(counts))
                run.kill(who)
                counts[who] += 1
        finally:
            person.stop = True
            thread.join()
            run.end()
        wrong = examine(run.folder, person)
        with contextlib.closing(sqlite3.connect(run.folder / "labels.sqlite")) as file:
            asked, labelled = file.execute("select count(*), count(answered_at) from preference").fetchone()
    return {
        "kills": kills,
        "killed": counts,
        "asked": asked,
        "labelled_in_the_end": labelled,
        "answers_stored": person.answers,
        "taken_back": person.undos,
        "refused": person.conflicts,
        "connections_broken": person.broken,
        "wrong": wrong,
        "target": "0 labels lost, 0 doubled",
        "holds": not wrong,
    }


if __name__ == "__main__":
    import_module(".label", "bigrad.cli")  # once for all of them
    report(__doc__, measure, RESULT)
