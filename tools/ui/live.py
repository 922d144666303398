"""A camera's pictures in, words out: the page sends luma, a child reads it from a pipe.

Nothing is decoded, and nothing of it is written to a disk.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from avb.tools.ui.child import FILM, Limits, events, line

#: Most and least pixels a side, and most bytes of pictures that come together.
SIDES, MOST_BYTES = (64, 1280), 1 << 24
#: A child that takes no pictures for so long is given up.
STUCK_S = 10.0


class Events(StreamingResponse):
    """Lines of JSON; what makes them is over when the page is gone."""

    media_type = "application/x-ndjson"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        async with aclosing(self.body_iterator):  # type: ignore[type-var]
            await super().__call__(scope, receive, send)


def model_and_face(models: list[dict[str, Any]], request: Request) -> tuple[dict[str, Any], int]:
    """Those that the page has chosen; KeyError, ValueError or IndexError: it has not."""
    number, face = (int(request.query_params[name]) for name in ("model", "face"))
    if number < 0 or face < 1:
        raise ValueError
    return models[number], face


class Live:
    """POST /live?model=0&face=1&width=320&height=240, then POST /live/NAME with luma, [n x H x W].

    The answer of the first are lines of JSON: `live`, the name, then a line a word. A post without
    pictures ends it. One film or camera is worked on at a time.
    """

    def __init__(
        self, models: list[dict[str, Any]], folder: Path, limits: Limits, turn: asyncio.Lock
    ) -> None:
        self.models, self.folder, self.limits, self.turn = models, folder, limits, turn
        self._pipes: dict[str, int] = {}
        self._last = ""  # the camera that ended: what the page had sent by then is no fault

    async def begin(self, request: Request) -> Response:
        """Answer with words."""
        if request.headers.get("content-type") != FILM:  # pages of other sites cannot send it
            raise HTTPException(415, f"asked for as {FILM}")
        try:
            model, face = model_and_face(self.models, request)
            sides = [int(request.query_params[name]) for name in ("width", "height")]
            if not all(SIDES[0] <= side <= SIDES[1] for side in sides):
                raise ValueError
        except (KeyError, ValueError, IndexError):
            raise HTTPException(400, "no such model, face or size of pictures") from None
        return Events(self.words(model, face, *sides))

    async def words(self, *given: Any) -> AsyncGenerator[bytes, None]:
        """The name, then what `film.listen` says, which is given the pipe and this."""
        if self.turn.locked():
            yield line(error="another clip or camera is being read; try again")
            return
        async with self.turn:
            with TemporaryDirectory(dir=self.folder) as folder:
                pipe, name = Path(folder) / "pictures", secrets.token_urlsafe(12)
                os.mkfifo(pipe)
                # For both, so that neither waits for the other end.
                self._pipes[name] = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
                yield line(live=name)
                work = events("avb.tools.ui.film:listen", self.limits, str(pipe), *given)
                try:
                    async with aclosing(work):
                        async for event in work:
                            yield event
                finally:
                    self._end(name)

    async def take(self, request: Request) -> Response:
        """Pass pictures on to the child."""
        name = request.path_params["name"]
        if request.headers.get("content-type") != FILM:
            raise HTTPException(415, f"pictures are sent as {FILM}")
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > MOST_BYTES:
                raise HTTPException(413, "too many pictures together")
        if not data:
            self._end(name)
        rest, begun = memoryview(data), asyncio.get_running_loop().time()
        while rest:
            if name not in self._pipes:
                if name == self._last:
                    break
                raise HTTPException(404, "no such camera is being read")
            try:
                rest = rest[os.write(self._pipes[name], rest) :]
            except BlockingIOError:
                if asyncio.get_running_loop().time() > begun + STUCK_S:
                    raise HTTPException(503, "pictures come faster than they are read") from None
                await asyncio.sleep(0.005)
        return Response(status_code=204)

    def _end(self, name: str) -> None:
        with suppress(KeyError):
            os.close(self._pipes.pop(name))
            self._last = name
