"""``bigrad label``: a person compares clips of a run in the browser, while the run goes on."""

from __future__ import annotations

import errno
import secrets
import shlex
import socket
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
import uvicorn

from ..errors import InputError, RunError
from ..rlhf import LabelDesk
from .label_page import label_page

HOST = "127.0.0.1"


@dataclass
class Options:
    """Compare pairs of clips of a run in the browser; each answer is on disk before the next pair is shown.

    The page is for this machine alone, and its address holds a secret that changes with every start. The run may go on
    meanwhile, or be stopped; labels wait for it. From another machine: --port 8421 and ssh -L 8421:127.0.0.1:8421 HOST.
    """

    run: Path
    """Folder of the run."""
    port: int = 0
    """Where to serve the page; 0 takes any free port."""
    open: bool = True
    """Open the page in the browser."""
    name: str = "person"
    """Who answers, kept beside each answer."""


def run(argv: Sequence[str]) -> int:
    """Run the command until Ctrl-C and return its exit code."""
    options = tyro.cli(Options, prog="bigrad label", args=list(argv))
    desk = LabelDesk(options.run, options.name)
    listener = listen(options.port, options.run)
    token = secrets.token_urlsafe(24)
    address = f"http://{HOST}:{listener.getsockname()[1]}/{token}/"
    print(f"Label pairs of {options.run} at\n  {address}\nCtrl-C ends it; what was answered is kept.", flush=True)
    if options.open:
        webbrowser.open(address)
    config = uvicorn.Config(
        label_page(desk, token),
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,  # addresses hold the secret
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        progress = desk.progress()
        desk.store.close()
        print(f"{progress.answered} answered, {progress.waiting} waiting.", file=sys.stderr)
    return 0


def listen(port: int, folder: Path) -> socket.socket:
    """A socket of this machine alone.

    Raises:
        InputError: it is no port.
        RunError: it is in use, or not allowed.
    """
    again = f"bigrad label --run {shlex.quote(str(folder))} --port"
    if not 0 <= port <= 65535:
        raise InputError(f"port is {port}; wanted 0 (any free one) to 65535: {again} 0")
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise RunError(f"port {port} of {HOST} is in use: choose another, or any free one: {again} 0") from error
        raise RunError(f"port {port} of {HOST} cannot be used ({error.strerror}): {again} 0") from error
