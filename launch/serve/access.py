"""Who may ask: the token of every request, web pages of other origins, and the size of a body."""

import hmac
import os
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError, require
from configs.schema.serve import ServeConfig

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN_VARIABLE = "SHARDREC_SERVE_TOKEN"
OPEN_PATHS = ("/health", "/ready")
"""What a load balancer asks, and what tells nothing: they need no token."""
_MAX_TOKEN_BYTES = 4096


def token_of(config: ServeConfig) -> str:
    """The bearer token of ``serve.token_file``, else of the environment; empty for none. Raises
    :class:`ConfigError`."""
    if not config.token_file:
        source, text = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE, "")
        if not text:
            return ""
    else:
        source = f"serve.token_file={config.token_file}"
        try:
            with Path(config.token_file).open("rb") as file:
                text = file.read(_MAX_TOKEN_BYTES + 1).decode("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{source} cannot be read ({error}); write a token of printable characters into it"
            ) from error
    token = text.strip()
    is_token = token.isascii() and token.isprintable() and 8 <= len(token) < _MAX_TOKEN_BYTES and " " not in token
    require(is_token, f"{source} must hold a token of at least 8 printable characters without a blank")
    return token


class Gate:
    """Answers 401 to a request without the token, and 403 to one that a web page of another origin makes."""

    def __init__(self, app: "ASGIApp", token: str) -> None:
        self._app, self._expected = app, f"Bearer {token}".encode() if token else b""

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """As ASGI has it."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        from launch.serve.answers import errors_answer

        headers = dict(scope["headers"])
        if _is_foreign(headers):
            answer = errors_answer(403, [(None, "requests of web pages of other origins are refused")])
        elif self._expected and not hmac.compare_digest(headers.get(b"authorization", b""), self._expected):
            answer = errors_answer(401, [(None, "send the header Authorization: Bearer TOKEN")])
            answer.headers["WWW-Authenticate"] = "Bearer"
        else:
            await self._app(scope, receive, send)
            return
        await answer(scope, receive, send)


async def read_body(request: "Request", max_bytes: int) -> bytes:
    """The body of ``request``; raises :class:`InvalidRequest` for one of more than ``max_bytes``."""
    from launch.serve.requests import InvalidRequest

    size, parts = 0, []
    announced = request.headers.get("content-length", "0")
    is_too_large = announced.isdecimal() and int(announced[:20]) > max_bytes
    if not is_too_large:
        async for part in request.stream():
            size += len(part)
            is_too_large = size > max_bytes
            if is_too_large:
                break
            parts.append(part)
    if is_too_large:
        raise InvalidRequest(413, [(None, f"the body has more than {max_bytes:,} bytes (serve.max_body_kib)")])
    return b"".join(parts)


def _is_foreign(headers: dict[bytes, bytes]) -> bool:
    """A browser names the page that asks; programs name none."""
    origin = headers.get(b"origin", b"")
    return bool(origin) and origin.partition(b"://")[2] != headers.get(b"host", b"")
