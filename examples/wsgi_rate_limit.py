"""A WSGI middleware that limits requests, and tells clients how much they have left.

    python -m examples.wsgi_rate_limit          # on a private MariaDB
    HSKV_URL=... python -m examples.wsgi_rate_limit

then `curl -i http://127.0.0.1:8000/` some times. All processes of an application share the count.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING
from wsgiref.simple_server import make_server

import hskv
from hskv.mariadb import PrivateServer

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class RateLimitMiddleware:
    """Answers 429 beyond the limit, and adds RateLimit headers to every answer."""

    def __init__(
        self,
        application: "WSGIApplication",
        limiter: hskv.RateLimiter,
        identity: "Callable[[WSGIEnvironment], str]" = lambda environ: environ["REMOTE_ADDR"],
    ) -> None:
        self.application = application
        self.limiter = limiter
        self.identity = identity

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        """Hit, and answer."""
        decision = self.limiter.hit(self.identity(environ))
        limits = list(self.limiter.headers(decision).items())
        if not decision:
            start_response("429 Too Many Requests", [("Content-Type", "text/plain"), *limits])
            return [b"Too many requests.\n"]

        def start(status, headers, error=None):  # type: ignore[no-untyped-def]
            return start_response(status, [*headers, *limits], error)

        return self.application(environ, start)


def application(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
    """What is limited."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello.\n"]


def limited(store: hskv.KeyValueStore[str, object]) -> RateLimitMiddleware:
    """Five requests in ten seconds for each address; all of them where the table is away."""
    limiter = store.limiter("web", limit=5, per=10, strategy="gcra", fail="open")
    return RateLimitMiddleware(application, limiter)


def main() -> None:
    """Serve on loopback until interrupted."""
    with ExitStack() as stack:
        url = os.environ.get("HSKV_URL") or stack.enter_context(PrivateServer()).url
        store = stack.enter_context(hskv.connect(url))
        port = int(os.environ.get("PORT", "8000"))
        with make_server("127.0.0.1", port, limited(store)) as server:
            print(f"http://127.0.0.1:{server.server_port}/", flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print("stopped")


if __name__ == "__main__":
    main()
