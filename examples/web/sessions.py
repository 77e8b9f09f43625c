"""Sessions of Flask as rows of a store: all processes see them, and they end by themselves.

The browser has a random id in a cookie, the table its SHA-256: who reads the table, or a backup of
it, can take over no session.
"""

import hashlib
import secrets
from typing import Any, Final

from flask import Flask, Request, Response, request
from flask.sessions import SessionInterface, SessionMixin

from hskv import KeyValueStore

COOKIE: Final = "web_session"
LIFE_SECONDS: Final = 30 * 60.0
_ID_BYTES: Final = 32


class Session(dict[str, Any], SessionMixin):
    """What is known of a visitor; of one who has none there is no row and no cookie."""

    def __init__(self, values: dict[str, Any], token: str | None) -> None:
        super().__init__(values)
        self.read = dict(values)
        self.token = token
        self.replaced: str | None = None

    def renew(self) -> None:
        """Go on under a new id; the old one, which another may have planted, is worth nothing."""
        self.replaced, self.token = self.token, None


def row_key(token: str) -> str:
    """The key of a session's row."""
    return hashlib.sha256(token.encode()).hexdigest()


class StoreSessions(SessionInterface):
    """Keeps sessions in a store, each for half an hour after it was last used.

    Of two requests that change a session at the same time the later one wins. A session that ended
    meanwhile is not brought back.
    """

    def __init__(self, store: KeyValueStore[str, Any]) -> None:
        self._store = store

    def is_null_session(self, obj: object) -> bool:
        """True where it could not be read: then there is nothing to keep."""
        return not isinstance(obj, Session)

    def open_session(self, app: Flask, request: Request) -> Session:
        """The session whose id the cookie has. One round trip, none without a cookie."""
        token = request.cookies.get(COOKIE)
        values = self._store.get(row_key(token)) if token else None
        return Session(values, token) if values else Session({}, None)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Keep what changed, or that it was used. A round trip; up to three at a sign-in."""
        assert isinstance(session, Session)
        response.vary.add("Cookie")
        if session.replaced:
            self._store.delete(row_key(session.replaced))
        if session and session.token is None:
            self._begin(session, response)
        elif session.token and not (session and self._keep(session, row_key(session.token))):
            self._store.delete(row_key(session.token))
            response.delete_cookie(COOKIE, httponly=True, samesite="Lax")

    def _begin(self, session: Session, response: Response) -> None:
        token = secrets.token_urlsafe(_ID_BYTES)
        self._store.set(row_key(token), dict(session), ttl=LIFE_SECONDS)
        response.set_cookie(COOKIE, token, httponly=True, samesite="Lax", secure=request.is_secure)

    def _keep(self, session: Session, key: str) -> bool:
        """Say that it was used, or write what changed; False where it ended meanwhile."""
        if session == session.read:
            return self._store.touch(key, ttl=LIFE_SECONDS)
        return self._store.replace(key, dict(session), ttl=LIFE_SECONDS)
