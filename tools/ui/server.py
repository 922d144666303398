"""The page's server: its files, what there is to choose from, and films in, events out."""

import asyncio
import ipaddress
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from avb.tools.ui.child import FILM, Limits, Stopped, events, line, lines
from avb.tools.ui.live import Events, Live, model_and_face

PAGE = Path(__file__).parent / "page"
#: Films on the disk at a time; further ones wait to be sent.
MOST_FILMS = 16
#: A film has to come at this pace, after the first seconds: who stalls makes room for others.
GRACE_S, SLOWEST_BYTES_PER_S = 10.0, 20_000


@dataclass
class Service:
    """What a page may ask for, and what it may cost."""

    models: list[dict[str, Any]]  # what `film.describe` said of each checkpoint
    folder: Path  # films are kept in it while they are worked on, and no longer
    # max_bytes, max_seconds: of a film
    max_bytes: int
    max_seconds: float
    limits: Limits  # of the child that works on one
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_FILMS))

    def app(self, hosts: list[str]) -> Starlette:
        """The application; requests that call this machine by another name are refused.

        Such come from a page of another site whose name was made to lead here (DNS rebinding).
        """
        live = Live(self.models, self.folder, self.limits, self.turn)
        routes = [
            Route("/models", self.choices),
            Route("/sample", self.sample),
            Route("/read", _Read(self), methods=["POST"]),
            Route("/live", live.begin, methods=["POST"]),
            Route("/live/{name}", live.take, methods=["POST"]),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ]
        guard = Middleware(_Guard, hosts=hosts)
        return Starlette(routes=routes, middleware=[guard])

    async def choices(self, request: Request) -> Response:
        """GET /models: the models by number, and the limits."""
        shown = ("name", "task", "corpus", "words", "slots", "known", "floor", "sentences")
        models = [{key: model[key] for key in shown} for model in self.models]
        return JSONResponse(
            {"models": models, "max_bytes": self.max_bytes, "max_seconds": self.max_seconds}
        )

    async def sample(self, request: Request) -> Response:
        """GET /sample: a drawn talker's clip, drawn when it is first asked for."""
        film = self.folder / "sample.mpg"
        async with self.turn:
            if not film.exists():
                try:
                    async for _ in lines("avb.tools.ui.film:draw", self.limits, str(film)):
                        pass
                except Stopped as reason:
                    film.unlink(missing_ok=True)
                    raise HTTPException(503, f"no clip can be drawn: {reason}") from None
        return Response(film.read_bytes(), media_type=FILM)

    async def receive(self, request: Request, film: Path) -> None:
        """Write a request's body to a file; HTTPException: too large or slow, or not the page's."""
        if request.headers.get("content-type") != FILM:
            raise HTTPException(415, f"films are sent as {FILM}")
        size, begun = 0, asyncio.get_running_loop().time()
        try:
            with film.open("wb") as file:
                async with asyncio.timeout(GRACE_S) as limit:
                    async for chunk in request.stream():
                        size += len(chunk)
                        if size > self.max_bytes:
                            most = self.max_bytes / 1e6
                            raise HTTPException(413, f"more than {most:g} MB (avb ui --max-mb)")
                        file.write(chunk)
                        limit.reschedule(begun + GRACE_S + size / SLOWEST_BYTES_PER_S)
        except TimeoutError:
            raise HTTPException(408, "the clip came too slowly") from None

    async def read(self, film: Path, *given: Any) -> AsyncGenerator[bytes, None]:
        """Events about one film as lines of JSON; one film is worked on at a time."""
        if self.turn.locked():
            yield line(doing="Waiting for another clip")
        async with self.turn:
            work = events("avb.tools.ui.film:read", self.limits, str(film), *given)
            async with aclosing(work):
                async for event in work:
                    yield event


class _Read:
    """POST /read?model=0&box=auto&face=1, a film as its body."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with events; nothing of the film is left, whichever way it ends."""
        request, service = Request(scope, receive), self.service
        try:
            model, face = model_and_face(service.models, request)
            box = request.query_params["box"]
        except (KeyError, ValueError, IndexError):
            raise HTTPException(400, "no such model, box or face") from None
        async with service.room:
            with TemporaryDirectory(dir=service.folder) as folder:
                film = Path(folder) / "film"
                try:
                    await service.receive(request, film)
                except ClientDisconnect:
                    return
                work = service.read(film, model, box, face, service.max_seconds)
                await Events(work)(scope, receive, send)


class _Guard:
    """Refuses requests that call this machine by a name that is none of `hosts`; "*" is any."""

    def __init__(self, app: ASGIApp, hosts: list[str]) -> None:
        self._app = app
        self._hosts = {plain_host(host) for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "*" not in self._hosts:
            named = Request(scope).headers.get("host", "")
            # Of "name:port" and "[::1]:port"; a bare ::1 has no port.
            name = named[1:].partition("]")[0] if named[:1] == "[" else named.rpartition(":")[0]
            if not {plain_host(name), plain_host(named)} & self._hosts:
                refusal = PlainTextResponse("Invalid host header", status_code=400)
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def plain_host(name: str) -> str:
    """A host in one spelling: addresses have many, and names end with a dot or do not."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower().rstrip(".")
