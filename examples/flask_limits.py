"""A Flask application with Flask-Limiter, whose counts are in a MariaDB table.

    pip install 'hskv[limits]' flask-limiter
    python -m examples.flask_limits          # on a private MariaDB
    HSKV_URL=... python -m examples.flask_limits

then `curl -i http://127.0.0.1:8000/` some times. All processes of an application share the count.
"""

import os
from contextlib import ExitStack

from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

# Makes the schemes hskv:// and hskv+unix:// known to limits.
import hskv.integrations.limits  # noqa: F401
from hskv.mariadb import PrivateServer


def make_application(url: str, strategy: str = "sliding-window-counter") -> Flask:
    """Three requests in ten seconds for each address; a page of its own has one."""
    application = Flask(__name__)
    limiter = Limiter(
        get_remote_address,
        app=application,
        default_limits=["3 per 10 seconds"],
        storage_uri=url,
        storage_options={"timeout": "2"},
        strategy=strategy,
        headers_enabled=True,
    )

    @application.get("/")
    def index() -> str:
        return "Hello.\n"

    @application.get("/report")
    @limiter.limit("1 per minute")
    def report() -> str:
        return "A costly page.\n"

    return application


def main() -> None:
    """Serve on loopback until interrupted."""
    with ExitStack() as stack:
        url = os.environ.get("HSKV_URL") or stack.enter_context(PrivateServer()).url
        make_application(url).run("127.0.0.1", int(os.environ.get("PORT", "8000")))


if __name__ == "__main__":
    main()
