"""Addresses → pages, for readers on this machine.

    /                      the runs
    /report?run=A&run=B    one or several in full; &price=2.49&utilization=0.4 as the options of ``report``
    /compare?run=A&run=B   their tables
    /claims                the claims on file, by all runs or those named
    /events                a line whenever the folder has changed
    /static/NAME           style sheets and scripts

Nothing is written but what every reading command keeps of a folder, its index.  Another site's page can
neither read nor frame an answer, nor reach it by a name of its own that leads here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.errors import InputError, nearest
from profiler.report.html import render
from profiler.report.html.document import Asked
from profiler.view import pages
from profiler.view.folder import Folder

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


STATIC = "/static"
LOOK_EVERY_S = 1.0
KEPT = 8  # pages, of a megabyte or so each
TERMS = ("price", "basis", "utilization", "pue")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Site:
    """The pages of one folder.  A page is made once for each state of the folder, one at a time: reading and
    drawing take a core and memory."""

    def __init__(self, path: Path) -> None:
        self.folder = Folder(path)
        self._made: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    def page(self, request: Request, make: Callable[[Folder, Request], str]) -> Response:
        """The page of this address; what cannot be made says why in a line."""
        from starlette.responses import HTMLResponse, PlainTextResponse

        try:
            return HTMLResponse(self._once(request, make), headers=HEADERS)
        except InputError as error:
            return PlainTextResponse(f"{error}\n", status_code=400, headers=HEADERS)

    def _once(self, request: Request, make: Callable[[Folder, Request], str]) -> str:
        with self._one_at_a_time:
            key = (self.folder.stamp(), str(request.url.replace(scheme="", netloc="")))
            if key not in self._made:
                self._made[key] = make(self.folder, request)
            self._made.move_to_end(key)
            while len(self._made) > KEPT:
                self._made.popitem(last=False)
            return self._made[key]

    async def changes(self) -> AsyncIterator[str]:
        """Server-sent events: the folder's stamp, at once and whenever it is another."""
        import anyio

        last = None
        while True:
            stamp = await anyio.to_thread.run_sync(self.folder.stamp)
            yield ": still here\n\n" if stamp == last else f"data: {stamp}\n\n"
            last = stamp
            await anyio.sleep(LOOK_EVERY_S)


def app(path: Path) -> Starlette:
    """The site of a results folder, to be served on the loopback interface."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    site = Site(path)

    def events(_: Request) -> Response:
        return StreamingResponse(site.changes(), media_type="text/event-stream", headers=HEADERS)

    made = {"/": _listing, "/report": _report, "/compare": _compared, "/claims": _claims}
    return Starlette(
        routes=[
            *(
                Route(address, partial(_answer, site, make), methods=["GET"])
                for address, make in made.items()
            ),
            Route("/events", events, methods=["GET"]),
            Route(f"{STATIC}/{{name}}", _static, methods=["GET"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
    )


def _answer(site: Site, make: Callable[[Folder, Request], str], request: Request) -> Response:
    return site.page(request, make)


def _static(request: Request) -> Response:
    from starlette.responses import PlainTextResponse, Response

    name = request.path_params["name"]
    text = render.asset(name)
    if text is None:
        return PlainTextResponse("no such file\n", status_code=404, headers=HEADERS)
    kind = "text/css" if name.endswith(".css") else "text/javascript"
    return Response(text, media_type=kind, headers=HEADERS)


# --------------------------------------------------------------------------------------------- pages


def _listing(folder: Folder, _: Request) -> str:
    return render.served(pages.listing(folder), STATIC, "list.html")


def _report(folder: Folder, request: Request) -> str:
    return render.served(pages.report(folder, _picked(request), _asked(request)), STATIC)


def _compared(folder: Folder, request: Request) -> str:
    return render.served(pages.compared(folder, _picked(request), _asked(request)), STATIC)


def _claims(folder: Folder, request: Request) -> str:
    return render.served(pages.claims(folder, request.query_params.getlist("run")), STATIC)


def _picked(request: Request) -> list[str]:
    names = request.query_params.getlist("run")
    if not names:
        raise InputError("no run was picked: go back and pick one")
    return names


def _asked(request: Request) -> Asked:
    from profiler.comparison import Question
    from profiler.cost import terms

    for name in request.query_params:
        if name not in ("run", *TERMS):
            raise InputError(f"{name}: no such term of an address{nearest(name, TERMS)}")
    said = {name: text for name in TERMS if (text := request.query_params.get(name))}
    return Asked(question=Question(terms=terms.read((), **said)))
