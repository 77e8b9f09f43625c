"""The application: one page, what its forms do, and the stream of the counter.

Each process makes one for itself after gunicorn forked it, with a store and connections of its own.
"""

import os
import time
from typing import Any, Final

from flask import Flask, Response, abort, redirect, render_template, request, session, url_for
from werkzeug.exceptions import InternalServerError
from werkzeug.wrappers import Response as AnyResponse

import hskv

from .live import events
from .report import Reports
from .sessions import Session, StoreSessions

CLICKS: Final = 5
CLICK_SECONDS: Final = 10
NAME_LENGTH: Final = 40
COUNT: Final = "count"
LIMITS: Final = {"clicks": CLICKS, "seconds": CLICK_SECONDS, "name_length": NAME_LENGTH}
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def make_application(url: str | None = None) -> Flask:
    """The application on a store; `HSKV_URL` says which unless it is given. No I/O."""
    application = Flask(__name__)
    # A form has a name in it, no more.
    application.config["MAX_CONTENT_LENGTH"] = 16 * 1024
    store = hskv.connect(url, prefix="web:")
    application.session_interface = StoreSessions(store.namespace("session:"))
    application.before_request(check_origin)
    application.after_request(secure)
    application.register_error_handler(InternalServerError, failed)
    add_page(application, store, Reports(url, store))
    add_sessions(application)
    add_counter(application, store)
    return application


def check_origin() -> None:
    """Refuse a form that another site sent; browsers say where it comes from."""
    origin = request.headers.get("Sec-Fetch-Site", "same-origin")
    if request.method == "POST" and origin not in ("same-origin", "none"):
        abort(403)


def secure(response: Response) -> Response:
    """Add what keeps a page to itself."""
    response.headers.update(HEADERS)
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response


def failed(error: InternalServerError) -> tuple[str, int]:
    """Tell whether it may go better later: the table cannot be reached."""
    if isinstance(error.original_exception, hskv.HandlerSocketError):
        why = "The database cannot be reached, or did not answer. Try again in a while."
        return render_template("refused.html", title="Not now", why=why), 503
    return render_template("refused.html", title="A fault", why="It was logged."), 500


def add_page(application: Flask, store: hskv.KeyValueStore[str, Any], reports: Reports) -> None:
    """The page, and the button that has its report made anew."""

    @application.get("/")
    def index() -> str:
        began = time.perf_counter()
        values = {"report": reports.get(), "count": store.get(COUNT, 0)}
        took_ms = (time.perf_counter() - began) * 1000
        return render_template(
            "page.html", process=os.getpid(), took_ms=took_ms, **LIMITS, **values
        )

    @application.post("/report")
    def make_anew() -> AnyResponse:
        reports.forget()
        return back("cache")


def back(part: str) -> AnyResponse:
    """The answer to a form: the page again, so that reloading it sends nothing twice."""
    return redirect(url_for("index", _anchor=part), 303)


def add_sessions(application: Flask) -> None:
    """Sign in by a name, and out again."""

    @application.post("/sign-in")
    def sign_in() -> AnyResponse | tuple[str, int]:
        name = request.form.get("name", "").strip()
        if not 1 <= len(name) <= NAME_LENGTH or not name.isprintable():
            why = f"A name has 1 to {NAME_LENGTH} characters."
            return render_template("refused.html", title="That is no name", why=why), 400
        assert isinstance(session, Session)
        session.renew()
        session["name"] = name
        return back("session")

    @application.post("/sign-out")
    def sign_out() -> AnyResponse:
        session.clear()
        return back("session")


def add_counter(application: Flask, store: hskv.KeyValueStore[str, Any]) -> None:
    """Count one more, within limits, and tell all who look on."""
    limiter = store.limiter("clicks", CLICKS, CLICK_SECONDS, strategy="gcra", fail="open")

    @application.post("/count")
    def count() -> AnyResponse | tuple[str, int, dict[str, str]]:
        decision = limiter.hit(request.remote_addr or "")
        headers = limiter.headers(decision)
        if not decision:
            wait = f"Try again in {headers['Retry-After']} s."
            why = f"{CLICKS} clicks in {CLICK_SECONDS} seconds are allowed. {wait}"
            text = render_template("refused.html", title="Too many clicks", why=why)
            return text, 429, headers
        store.incr(COUNT)
        answer = back("counter")
        answer.headers.update(headers)
        return answer

    @application.get("/count")
    def live() -> Response:
        return Response(events(store, COUNT), mimetype="text/event-stream")
