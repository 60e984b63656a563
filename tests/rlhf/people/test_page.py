"""The page's addresses: closed to strangers, polite to two at once, and no answer is said to be stored before it is."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from bigrad.rlhf import LabelDesk

from . import room

pytest.importorskip("fastapi", reason='needs pip install "bigrad[label]"')
pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")

from fastapi.testclient import TestClient

TOKEN = "a-secret"
HTML = Path(sys.modules["bigrad.rlhf"].__file__ or "").parents[1] / "cli" / "label_page.html"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return room.with_questions(tmp_path / "run", [False, True, False])


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    desk = LabelDesk(folder, "Ada")
    app = import_module(".label_page", "bigrad.cli").label_page(desk, TOKEN)
    yield TestClient(app, base_url="http://127.0.0.1:8421", raise_server_exceptions=False)
    desk.store.close()


def get(client: TestClient, path: str) -> Any:
    return client.get(f"/{TOKEN}/{path}")


def answer(client: TestClient, question: object, choice: str = "left", browser: str = "one", **more: object) -> Any:
    body = {"browser": browser, "question": question, "choice": choice, **more}
    return client.post(f"/{TOKEN}/answer", json=body)


def undo(client: TestClient, question: int, browser: str = "one") -> Any:
    return client.post(f"/{TOKEN}/undo", json={"browser": browser, "question": question})


def test_the_page_is_one_file_that_needs_nothing_from_outside(client: TestClient) -> None:
    page = get(client, "")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    html = page.text
    assert not re.search(r"https?:|//[a-z]|@import|<link[^>]*href=\"(?!data:)|<script[^>]+src|\bon\w+=|style=", html)
    assert "innerHTML" not in html


def test_the_policy_allows_what_is_in_the_file_and_nothing_else(client: TestClient) -> None:
    headers = get(client, "").headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert re.fullmatch(r"'sha256-[\w+/=]{44}'", policy["script-src"])
    assert re.fullmatch(r"'sha256-[\w+/=]{44}'", policy["style-src"])
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"  # the address holds the secret
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/", "/{}", "/{}/", "/{}/next?browser=b", "/{}/clip/1/left", "/docs", "/openapi.json"]
)
@pytest.mark.parametrize("token", ["a-secre", "a-secret2", "A-secret", "", "%FF", "a-secr%C3%A9t"])
def test_a_wrong_token_is_refused_without_a_word(client: TestClient, token: str, path: str) -> None:
    reply = client.get(path.format(token), follow_redirects=False)
    assert (reply.status_code, reply.content) == (403, b"")


def test_a_wrong_token_stores_nothing(client: TestClient, folder: Path) -> None:
    body = {"browser": "b", "question": 1, "choice": "left"}
    assert client.post("/another/answer", json=body).status_code == 403
    assert client.post("/another/undo", json=body).status_code == 403
    assert room.rows(folder, "answered_at") == [(None,)] * 3


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8421", "127.0.0.1.evil.example", "0.0.0.0", ""])
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    reply = client.get(f"/{TOKEN}/next?browser=b", headers={"host": host})
    assert reply.status_code == 400
    assert "question" not in reply.text


@pytest.mark.parametrize("host", ["127.0.0.1:8421", "localhost:8421", "localhost"])
def test_this_machine_may_look(client: TestClient, host: str) -> None:
    assert client.get(f"/{TOKEN}/next?browser=b", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    ("question", "choice", "label"),
    [(1, "left", 0), (1, "right", 1), (2, "left", 1), (2, "right", 0), (2, "equal", 0.5), (3, "skip", None)],
)
def test_an_answer_is_on_disk_before_the_next_pair_is_named(
    client: TestClient, folder: Path, question: int, choice: str, label: float | None
) -> None:
    reply = answer(client, question, choice, seconds=1.25)
    assert reply.status_code == 200
    assert reply.json()["question"] == (2 if question == 1 else 1)
    assert [reply.json()[name] for name in ("answered", "waiting", "budget")] == [1, 2, room.BUDGET]
    found = room.rows(folder, "label, seconds, who")
    assert found[question - 1] == (label, 1.25, "Ada")
    assert sum(row != (None, None, None) for row in found) == 1


def test_clips_are_shown_on_their_sides(client: TestClient) -> None:
    shown = {
        (question, side): get(client, f"clip/{question}/{side}") for question in (1, 2) for side in ("left", "right")
    }
    assert [reply.content for reply in shown.values()] == [b"left 0", b"right 0", b"right 1", b"left 1"]
    assert {reply.headers["content-type"] for reply in shown.values()} == {"image/webp"}


def test_a_pair_that_does_not_exist(client: TestClient, folder: Path) -> None:
    for reply in (answer(client, 4), answer(client, 0), answer(client, -(2**70)), undo(client, 99)):
        assert reply.status_code in {404, 422}
    assert answer(client, 4).json()["message"] == "There is no such pair in this run."
    assert answer(client, 2**70).status_code == 422
    assert get(client, "clip/4/left").status_code == 404
    assert get(client, f"clip/{2**70}/left").status_code == 422
    assert get(client, "clip/1/up").status_code == 422
    assert room.rows(folder, "answered_at") == [(None,)] * 3


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"browser": "b", "question": 1},
        {"browser": "b", "question": 1, "choice": "both"},
        {"browser": "b", "question": "one", "choice": "left"},
        {"browser": "", "question": 1, "choice": "left"},
        {"browser": "b" * 65, "question": 1, "choice": "left"},
        {"browser": "b", "question": 1, "choice": "left", "seconds": "long"},
    ],
)
def test_what_is_no_answer_is_refused(client: TestClient, folder: Path, body: object) -> None:
    assert client.post(f"/{TOKEN}/answer", json=body).status_code == 422
    assert room.rows(folder, "answered_at") == [(None,)] * 3


def test_two_browsers_are_given_different_pairs_while_there_are_some(client: TestClient) -> None:
    seen = [
        get(client, f"next?browser={browser}").json()["question"] for browser in ("one", "two", "three", "four", "one")
    ]
    assert seen == [1, 2, 3, 1, 1]


def test_the_second_answer_to_a_pair_is_refused_politely(client: TestClient, folder: Path) -> None:
    assert answer(client, 1, "left", "one").status_code == 200
    late = answer(client, 1, "right", "two")
    assert late.status_code == 409
    assert "has been answered already" in late.json()["message"]
    assert late.json()["question"] == 3  # one looks at 2
    assert room.rows(folder, "label") == [(0,), (None,), (None,)]


def test_an_undo_shows_the_pair_again(client: TestClient, folder: Path) -> None:
    answer(client, 1)
    answer(client, 2)
    reply = undo(client, 2)
    assert (reply.status_code, reply.json()["question"], reply.json()["answered"]) == (200, 2, 1)
    again = undo(client, 2)
    assert (again.status_code, again.json()["message"]) == (409, "That answer has been taken back already.")
    assert answer(client, 2, "equal").status_code == 200
    assert room.rows(folder, "label") == [(0,), (0.5,), (None,)]


def test_when_all_are_answered_nothing_waits_until_the_run_asks_again(client: TestClient, folder: Path) -> None:
    for question in (1, 2):
        answer(client, question, "skip")
    assert answer(client, 3).json() == {"question": None, "answered": 3, "waiting": 0, "budget": 8, "message": ""}
    assert get(client, "next?browser=one").json()["question"] is None
    room.open_store(folder).ask(room.pairs(1, 3), room.clips(1, 3), 9, [False])
    assert get(client, "next?browser=one").json()["question"] == 4


def test_an_answer_that_cannot_be_stored_is_not_said_to_be(client: TestClient, folder: Path) -> None:
    other = room.open_store(folder)
    other.connection.execute(
        "create trigger full before update on preference begin select raise(abort, 'database or disk is full'); end"
    )
    reply = answer(client, 1)
    assert reply.status_code == 500
    assert re.search(r"could not be stored.*disk is full.*free some space", reply.json()["message"])
    other.connection.execute("drop trigger full")
    assert answer(client, 1).status_code == 200


def test_every_key_and_every_button_says_one_of_the_choices() -> None:
    html = HTML.read_text()
    keys = json.loads(re.sub(r"(\w+):", r'"\1":', re.search(r"const keys = (\{.*?\});", html)[1]))  # type: ignore[index]
    wanted = {"ArrowLeft": "left", "ArrowRight": "right", "ArrowUp": "equal", "ArrowDown": "skip"}
    assert keys == wanted
    assert re.findall(r'<button type="button" data-choice="(\w+)" disabled>', html) == [
        "left",
        "right",
        "equal",
        "skip",
    ]
