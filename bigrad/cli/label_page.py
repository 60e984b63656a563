"""The page behind ``bigrad label``: one HTML file and five addresses, all below a secret."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path as File
from typing import Annotated, Any, Literal

from fastapi import Body, FastAPI, Path, Query, Request
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import HTMLResponse, JSONResponse, Response

from ..errors import BigradError
from ..rlhf import LabelDesk

Side = Literal["left", "right"]
Choice = Literal["left", "right", "equal", "skip"]
_MOST = 2**63 - 1  # that SQLite can look for

_STATUS = {"stored": 200, "conflict": 409, "unknown": 404}
_UNKNOWN = "There is no such pair in this run."
_ANSWERED = {
    "stored": "",
    "conflict": "This pair has been answered already, in another window perhaps. Here is what comes next.",
    "unknown": _UNKNOWN,
}
_UNDONE = {"stored": "", "conflict": "That answer has been taken back already.", "unknown": _UNKNOWN}


def label_page(desk: LabelDesk, token: str) -> FastAPI:
    """The web application: every address begins with ``/token/``, any other is refused without a word.

    Args:
        desk: the run's questions.
        token: the secret.
    """
    html = (File(__file__).parent / "label_page.html").read_text("utf-8")
    headers = {
        "Content-Security-Policy": policy(html),
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    shown: dict[str, int] = {}  # what each browser looks at, so that two people are given different pairs

    def state(browser: str, wanted: int | None = None) -> dict[str, Any]:
        question = desk.next({seen for viewer, seen in shown.items() if viewer != browser}, wanted)
        shown.pop(browser, None)
        if question is not None:
            shown[browser] = question
        return {"question": question, **asdict(desk.progress())}

    # One thread answers one request after the other: no two answers to one pair get past each other.
    @app.get("/{token}/")
    async def page() -> Response:
        return HTMLResponse(html)

    @app.get("/{token}/next")
    async def next_question(browser: Annotated[str, Query(min_length=1, max_length=64)]) -> dict[str, Any]:
        return state(browser)

    @app.get("/{token}/clip/{question}/{side}")
    async def clip(question: Annotated[int, Path(ge=0, le=_MOST)], side: Side) -> Response:
        media = desk.clip(question, side)
        return Response(status_code=404) if media is None else Response(media, media_type="image/webp")

    @app.post("/{token}/answer")
    async def answer(
        browser: Annotated[str, Body(min_length=1, max_length=64)],
        question: Annotated[int, Body(ge=0, le=_MOST)],
        choice: Annotated[Choice, Body()],
        seconds: Annotated[float | None, Body()] = None,
    ) -> Response:
        outcome = desk.answer(question, choice, seconds)
        return JSONResponse(state(browser) | {"message": _ANSWERED[outcome]}, _STATUS[outcome])

    @app.post("/{token}/undo")
    async def undo(
        browser: Annotated[str, Body(min_length=1, max_length=64)], question: Annotated[int, Body(ge=0, le=_MOST)]
    ) -> Response:
        outcome = desk.undo(question)
        return JSONResponse(state(browser, question) | {"message": _UNDONE[outcome]}, _STATUS[outcome])

    @app.exception_handler(BigradError)
    async def refuse(request: Request, error: BigradError) -> Response:
        return JSONResponse({"message": str(error)}, 500)

    @app.middleware("http")
    async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        given = request.scope["path"].split("/")[1]
        if secrets.compare_digest(given.encode(), token.encode()):
            response = await go_on(request)
        else:
            response = Response(status_code=403)
        response.headers.update(headers)
        return response

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False)
    return app


def policy(html: str) -> str:
    """A content security policy under which the styles and scripts of ``html`` work, and nothing else."""

    def hashes(tag: str) -> str:
        contents = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in contents)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src {hashes('style')}; "
        f"script-src {hashes('script')}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
