"""The child of `local_server`: `transformers serve` behind a door. A script, run by its path: it imports nothing of ours.

Its standard input brings the token that opens the door, and ends when the parent does, even by kill -9: so does the child.
"""

import hmac
import json
import os
import socket
import sys
import threading

ALLOWED = {("POST", "/v1/chat/completions"), ("GET", "/health")}


class Door:
    """ASGI: whoever lacks the token gets 401, and who has it can chat and ask for its health: all else is 404."""

    def __init__(self, app, token: str):
        self.app, self.bearer = app, f"Bearer {token}".encode()

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close"})
        given = dict(scope["headers"]).get(b"authorization", b"")
        known = hmac.compare_digest(given, self.bearer)
        if known and (scope["method"], scope["path"]) in ALLOWED:
            return await self.app(scope, receive, send)
        status = 404 if known else 401
        body = json.dumps({"error": {"message": "only the process that started this server may ask it to chat"}}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


def main() -> None:
    listener, token = socket.socket(fileno=int(os.environ.pop("FISHERLIB_LISTENER"))), b""
    while not token.endswith(b"\n"):
        token += (got := os.read(0, 1))
        if not got:  # the parent is gone already
            return
    threading.Thread(target=_end_with_parent, daemon=True).start()

    import uvicorn
    from transformers.cli.transformers import main as transformers

    serve = uvicorn.Server.serve

    def behind_the_door(server, sockets=None):
        server.config.app = Door(server.config.app, token.decode().strip())
        return serve(server, [listener])  # bound by the parent: nobody else can have taken the port

    uvicorn.Server.serve = behind_the_door  # type: ignore[method-assign]
    sys.exit(transformers())


if __name__ == "__main__":
    main()
