"""``bigrad label``: what it says and serves, as a process of its own; and what it says of mistakes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from importlib import import_module
from pathlib import Path

import pytest

from bigrad.cli import main

from . import room

needs_label = pytest.mark.skipif(
    any(import_module("importlib.util").find_spec(name) is None for name in ("fastapi", "uvicorn", "tyro")),
    reason='needs pip install "bigrad[label]"',
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return room.with_questions(tmp_path / "a run", [False, True])


def refusal(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    assert main(["label", *argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("bigrad: ")
    return err


@needs_label
def test_serves_on_this_machine_alone_until_ctrl_c(folder: Path) -> None:
    command = [sys.executable, "-m", "bigrad", "label", "--run", str(folder), "--no-open", "--name", "Ada"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        said = [server.stdout.readline() for _ in range(3)]
        address = re.fullmatch(r"  (http://127\.0\.0\.1:(\d+)/([\w-]{32})/)\n", said[1])
        assert address, said
        with urllib.request.urlopen(address[1]) as reply:
            assert b"Which clip shows the better behaviour?" in reply.read()
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(address[1].replace(address[3], "x"))
        body = b'{"browser": "b", "question": 2, "choice": "left"}'
        asked = urllib.request.Request(f"{address[1]}answer", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked) as reply:
            assert b'"answered":1,"waiting":1' in reply.read().replace(b" ", b"")
        others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)} - {"127.0.0.1", "::1"}
        for host in others:
            with socket.socket() as knock:
                assert knock.connect_ex((host, int(address[2]))) != 0
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=60)
    finally:
        server.kill()
        server.communicate()
    assert server.returncode == 130
    assert "1 answered, 1 waiting." in err
    assert address[3] not in out + err
    assert room.rows(folder, "label, who") == [(None, None), (1, "Ada")]


@needs_label
def test_a_port_in_use_is_named_with_the_way_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(capsys, ["--run", str(folder), "--no-open", "--port", str(port)])
    assert f"port {port} of 127.0.0.1 is in use" in said
    assert f"bigrad label --run '{folder}' --port 0" in said


@needs_label
@pytest.mark.parametrize("port", ["-1", "70000"])
def test_what_is_no_port_is_refused(port: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"port is {port}; wanted 0" in refusal(capsys, ["--run", str(folder), "--no-open", "--port", port])


@needs_label
def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, ["--run", str(tmp_path / "nowhere"), "--no-open"])
    assert re.search(r"config\.yaml cannot be read: .*Is this the folder of a run", said)
    assert not (tmp_path / "nowhere").exists()


@needs_label
def test_help_tells_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["label", "--help"])
    assert ending.value.code == 0
    out = capsys.readouterr().out
    assert all(option in out for option in ("--run", "--port", "--open", "--no-open", "--name", "ssh -L"))


@pytest.mark.parametrize(("package", "extra"), [("fastapi", "label"), ("uvicorn", "label")])
def test_without_the_extra_the_command_names_the_pip_line(
    package: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("bigrad.cli.label")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    said = refusal(capsys, ["--run", os.devnull])
    assert f"{package} is needed for labelling pairs of clips in the browser" in said
    assert f'pip install "bigrad[{extra}]"' in said
