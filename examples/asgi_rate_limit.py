"""An ASGI middleware that limits requests, and tells clients how much they have left.

    pip install uvicorn
    python -m examples.asgi_rate_limit          # on a private MariaDB
    HSKV_URL=... python -m examples.asgi_rate_limit

then `curl -i http://127.0.0.1:8000/` some times. A hit waits for the server, so it is made in a
thread; the event loop goes on meanwhile.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import ExitStack
from typing import Any

import hskv
from hskv.mariadb import PrivateServer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def address(scope: Scope) -> str:
    """Who asks: the peer's address."""
    client: tuple[str, int] | None = scope.get("client")
    return client[0] if client else ""


class RateLimitMiddleware:
    """Answers 429 beyond the limit, and adds RateLimit headers to every answer."""

    def __init__(
        self,
        application: Application,
        limiter: hskv.RateLimiter,
        identity: Callable[[Scope], str] = address,
    ) -> None:
        self.application = application
        self.limiter = limiter
        self.identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hit, in a thread, and answer."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        decision = await asyncio.to_thread(self.limiter.hit, self.identity(scope))
        limits = [
            (name.lower().encode(), value.encode())
            for name, value in self.limiter.headers(decision).items()
        ]

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *limits]
            await send(message)

        answer = self.application if decision else too_many_requests
        await answer(scope, receive, send_with_limits)


async def text(send: Send, status: int, body: bytes) -> None:
    """A whole answer."""
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def too_many_requests(scope: Scope, receive: Receive, send: Send) -> None:
    """What a refused request gets."""
    await text(send, 429, b"Too many requests.\n")


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """What is limited."""
    await text(send, 200, b"Hello.\n")


def limited(store: hskv.KeyValueStore[str, object]) -> RateLimitMiddleware:
    """Five requests in ten seconds for each address; all of them where the table is away."""
    limiter = store.limiter("web", limit=5, per=10, strategy="gcra", fail="open")
    return RateLimitMiddleware(application, limiter)


def main() -> None:
    """Serve on loopback until interrupted."""
    import uvicorn

    with ExitStack() as stack:
        url = os.environ.get("HSKV_URL") or stack.enter_context(PrivateServer()).url
        store = stack.enter_context(hskv.connect(url))
        port = int(os.environ.get("PORT", "8000"))
        uvicorn.run(limited(store), host="127.0.0.1", port=port, lifespan="off")


if __name__ == "__main__":
    main()
