"""What the documents show works: their Python runs, and the commands they name exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bigrad.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))) if path.exists()
]

every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def blocks(text: str) -> Iterator[tuple[str, int, str]]:
    """The fenced blocks as ``(language, line of the first character, content)``."""
    for match in re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield match[1], text.count("\n", 0, match.start(2)), match[2]


def python(text: str) -> str:
    """All Python blocks as one program that keeps the document's line numbers."""
    program = ""
    for language, line, content in blocks(text):
        if language == "python":
            program += "\n" * (line - program.count("\n")) + content
    return program


def commands(text: str, program: str) -> set[str]:
    """The sub-commands that shell blocks and inline code pass to ``program``."""
    shell = [
        line
        for language, _, content in blocks(text)
        if language in {"sh", "bash", "console"}
        for line in content.splitlines()
    ]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    found = (re.match(rf"(?:\$ )?{program} ([a-z][\w-]*)", line.strip()) for line in [*shell, *inline])
    return {match[1] for match in found if match}


@every_document
def test_the_python_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(python(path.read_text("utf-8")), path, "exec"), {"__name__": "__main__"})


@every_document
def test_the_commands_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert commands(text, "make") <= targets
    assert commands(text, "bigrad") <= COMMANDS.keys()


def test_the_readme_shows_python_and_both_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert python(text)
    assert commands(text, "make") >= {"demo", "test"}


def test_blocks_are_found_with_their_lines_and_commands() -> None:
    text = (
        "Run `make demo`.\n\n```python\na = 1\n```\n```sh\n$ make test\nbigrad rlhf --env X\n```\n```python\na / 0\n```"
    )
    assert commands(text, "make") == {"demo", "test"}
    assert commands(text, "bigrad") == {"rlhf"}
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile(python(text), "README.md", "exec"))
    assert caught.traceback[-1].lineno == text.splitlines().index("a / 0")
