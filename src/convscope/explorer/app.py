"""The server: its routes, which hold no logic of their own."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from convscope import __version__
from convscope.errors import ConvscopeError, UnknownLayer, UnknownTarget
from convscope.explorer import worker
from convscope.explorer.desk import Desk, NotThere
from convscope.explorer.jobs import Full, Job
from convscope.explorer.security import Guard
from convscope.explorer.settings import Settings
from convscope.registry import FAMILIES

STATIC = files("convscope.explorer") / "static"
PAGES = ("", "layers", "units", "pictures", "classes", "techniques", "jobs", "index", "label", "predict")
FOR_GOOD = {"cache-control": "private, max-age=31536000, immutable"}  # what is named by its hash never changes
NEVER = {"cache-control": "no-store"}
AWHILE = {"cache-control": "private, max-age=600"}  # of this network, which another server of this port may not have


class Wanted(BaseModel):
    """A technique to run."""

    technique: str = Field(max_length=100)
    options: dict[str, Any] = Field(default_factory=dict)
    pictures: list[str] = Field(default_factory=list, max_length=64)
    resume: str | None = Field(default=None, max_length=64, description="a stopped job to go on with")
    control: bool = Field(default=False, description="also with random weights, on one scale")


Square = Annotated[list[int], Field(min_length=4, max_length=4)]


class Changes(BaseModel):
    """What to do to a picture before the network sees it again."""

    boxes: list[Square] = Field(default_factory=list, max_length=400, description="top, left, height, width")
    fill: Literal["mean", "grey", "black"] = "mean"
    epsilon: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    style: str | None = Field(default=None, max_length=100)
    strength: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False)


class Chosen(BaseModel):
    """Pictures of the index."""

    ids: list[int] = Field(max_length=5000)


class Asked(BaseModel):
    """A sitting to begin."""

    kind: Literal["label", "predict"]
    limit: int = Field(default=20, ge=2, le=200)
    subject: str = Field(default="me", min_length=1, max_length=60)
    method: str = Field(default="gradcam", max_length=60, description="what explains, for predict")
    seed: int = Field(default=0, ge=0, le=2**31)


class Answered(BaseModel):
    """An answer to a question."""

    answer: str = Field(max_length=300)
    seconds: float = Field(default=0.0, ge=0, le=1e6, allow_inf_nan=False)


class Word(BaseModel):
    """What to tell a job."""

    word: Literal["cancel", "pause", "resume"]


def create_app(settings: Settings) -> Any:
    """The ASGI application, guarded."""
    desk = Desk(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            desk.close()

    app = FastAPI(
        title="convscope explorer", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url="/api/openapi.json",
    )  # fmt: skip
    app.state.desk = desk
    app.include_router(_network_routes(desk))
    app.include_router(_picture_routes(desk))
    app.include_router(_job_routes(desk))
    app.include_router(_index_routes(desk))
    app.include_router(_study_routes(desk))
    _pages(app, desk)
    app.add_exception_handler(ConvscopeError, _sentence)
    return Guard(app, settings)


async def _sentence(_: Request, error: Exception) -> JSONResponse:
    """Every error of the toolkit is one sentence for the page."""
    missing = isinstance(error, (UnknownLayer, UnknownTarget, NotThere))
    status = 503 if isinstance(error, Full) else 404 if missing else 422
    return JSONResponse({"detail": str(error)}, status)


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"description": "the body cannot be read"},
    404: {"description": "there is no such thing"},
    413: {"description": "too large"},
    422: {"description": "not possible; the sentence says why"},
    503: {"description": "the queue is full"},
}


BYTES: dict[str, Any] = {
    "required": True,
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}


def _router() -> APIRouter:
    return APIRouter(prefix="/api", responses=ERRORS)


def _png(content: bytes, headers: dict[str, str]) -> Response:
    return Response(content, media_type="image/png", headers=headers)


def _network_routes(desk: Desk) -> APIRouter:
    router = _router()

    @router.get("/network")
    def network() -> dict[str, Any]:
        """The network, its layers and its classes."""
        return desk.about()

    @router.get("/techniques")
    def techniques() -> dict[str, Any]:
        """All techniques with their forms."""
        return {"families": FAMILIES, "techniques": desk.techniques()}

    @router.get("/layers/{layer}/fields")
    def fields(layer: str) -> dict[str, Any]:
        """Pixels that each row and column of a layer's grid sees."""
        return {"fields": desk.live.fields(desk.layer(layer))}

    @router.get("/layers/{layer}/units/{channel}")
    def unit(
        layer: str, channel: int, picture: Annotated[str | None, Query(max_length=64)] = None
    ) -> dict[str, Any]:  # fmt: skip
        """What is known of a channel: where it fires most, its statistics, its filter."""
        return desk.unit(layer, channel, picture)

    @router.get("/layers/{layer}/units/{channel}/seen.png", response_class=Response)
    def seen(
        layer: str, channel: int, row: Annotated[int, Query(ge=0)] = 0, column: Annotated[int, Query(ge=0)] = 0,
        picture: Annotated[str | None, Query(max_length=64)] = None, place: Annotated[int | None, Query(ge=0)] = None,
    ) -> Response:  # fmt: skip
        """What makes a unit fire at a place of a picture, among the pixels that it sees there."""
        return _png(desk.seen(layer, channel, row, column, picture, place), AWHILE)

    @router.get("/layers/{layer}/filters/{channel}.png", response_class=Response)
    def filter_of(layer: str, channel: int) -> Response:
        """The channel's own filter, enlarged."""
        return _png(desk.filter(layer, channel), NEVER)

    return router


def _picture_routes(desk: Desk) -> APIRouter:
    router = _router()

    @router.get("/pictures")
    def pictures() -> dict[str, Any]:
        """Those that have been opened, and the free photographs."""
        return {"pictures": desk.listed()}

    @router.post("/pictures", status_code=201, openapi_extra={"requestBody": BYTES})
    async def add(request: Request, title: Annotated[str, Query(max_length=200)] = "picture") -> dict[str, Any]:
        """Open a picture: its bytes are the body, in any of the usual formats."""
        body = await request.body()
        return await run_in_threadpool(desk.add, body, title)

    @router.get("/pictures/{name}.png", response_class=Response)
    def picture(name: str) -> Response:
        """The picture as the network sees it."""
        return _png(desk.bytes_of(name), FOR_GOOD)

    @router.get("/pictures/{name}")
    def prediction(name: str) -> dict[str, Any]:
        """What the network says about it."""
        return desk.said(name)

    @router.post("/pictures/{name}/changes")
    def changes(name: str, wanted: Changes) -> dict[str, Any]:
        """What the network says when the picture is changed."""
        return desk.changed(name, wanted.model_dump())

    @router.get("/pictures/{name}/maps/{layer}")
    def maps(name: str, layer: str, page: Annotated[int, Query(ge=0, le=10_000)] = 0) -> dict[str, Any]:
        """Numbers about a layer's feature maps, 64 a page."""
        return desk.sheet(name, desk.layer(layer), page)

    @router.get("/pictures/{name}/maps/{layer}/sheet.png", response_class=Response)
    def sheet(name: str, layer: str, page: Annotated[int, Query(ge=0, le=10_000)] = 0) -> Response:
        """The feature maps of that page in one picture."""
        return _png(desk.live.sheet(desk.known(name), desk.layer(layer), page)[0], NEVER)

    @router.get("/pictures/{name}/maps/{layer}/{channel}.png", response_class=Response)
    def overlaid(name: str, layer: str, channel: int) -> Response:
        """One feature map laid over the picture."""
        return _png(desk.live.overlaid(desk.known(name), desk.layer(layer), channel), NEVER)

    return router


def _job_routes(desk: Desk) -> APIRouter:
    router = _router()

    @router.get("/jobs")
    def jobs() -> dict[str, Any]:
        """All runs, the latest first."""
        return {"jobs": [{**job.told(), "trace": []} for job in desk.jobs.all()]}

    @router.post("/jobs", status_code=202)
    def submit(wanted: Wanted) -> dict[str, Any]:
        """Run a technique; at once where the answer is known."""
        return desk.submit(wanted.technique, wanted.options, wanted.pictures, wanted.resume, wanted.control)

    @router.get("/jobs/{job}")
    def job(job: str) -> dict[str, Any]:
        """How far a run is, and how to repeat it."""
        return desk.told(_found(desk, job))

    @router.post("/jobs/{job}")
    def word(job: str, said: Word) -> dict[str, Any]:
        """Stop a run, let it wait, or let it go on."""
        found = _found(desk, job)
        desk.jobs.say(found, said.word)
        return found.told()

    @router.get("/jobs/{job}/events", response_class=StreamingResponse)
    async def events(job: str) -> StreamingResponse:
        """How far it is, whenever that changes, as server-sent events."""
        found = _found(desk, job)

        async def stream() -> AsyncIterator[str]:
            async for told in desk.jobs.events(found):
                yield f"data: {json.dumps(told)}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream", headers=NEVER)

    @router.get("/jobs/{job}/frame", response_class=Response)
    def frame(job: str) -> Response:
        """The latest picture of an optimisation."""
        found = _found(desk, job)
        if found.frame is None:
            raise HTTPException(404, "there is no picture yet")
        return Response(found.frame, media_type="image/jpeg", headers=NEVER)

    @router.get("/results/{key}/{name}", response_class=Response)
    def result(key: str, name: str) -> Response:
        """A part of a result: result.html, result.json, result.npz or result.png."""
        path = desk.jobs.file(key, name)
        if path is None:
            raise HTTPException(404, "there is no such result; run it again")
        kind = {worker.HTML: "text/html; charset=utf-8", worker.RAW: "application/octet-stream"}.get(name)
        return Response(path.read_bytes(), media_type=kind or mimetypes.guess_type(name)[0], headers=FOR_GOOD)

    return router


def _index_routes(desk: Desk) -> APIRouter:
    router = _router()

    @router.get("/index")
    def index() -> dict[str, Any]:
        """What has been scanned; null where nothing has."""
        return {"index": desk.index_about()}

    @router.get("/index/points", response_class=Response)
    def points(result: Annotated[str | None, Query(max_length=64)] = None) -> Response:
        """Every picture as a point: float32 columns x, y, label, predicted and id, one after another."""
        return Response(desk.points(result), media_type="application/octet-stream", headers=NEVER)

    @router.post("/index/rows")
    def rows(chosen: Chosen) -> dict[str, Any]:
        """What is known of several pictures."""
        return {"rows": desk.rows(chosen.ids)}

    @router.get("/index/pictures/{place}.webp", response_class=Response)
    def thumbnail(place: int) -> Response:
        """A small picture of one of them."""
        return Response(desk.thumbnail(place), media_type="image/webp", headers=NEVER)

    @router.get("/index/pictures/{place}/prepared.png", response_class=Response)
    def prepared(place: int) -> Response:
        """One of them as the network saw it."""
        return _png(desk.prepared(place), NEVER)

    @router.get("/index/pictures/{place}")
    def picture(place: int) -> dict[str, Any]:
        """What the scan found about one of them, and its nearest neighbours."""
        return desk.indexed(place)

    @router.post("/index/pictures/{place}")
    def opened(place: int) -> dict[str, Any]:
        """Open one of them as a picture of the explorer."""
        return desk.open_indexed(place)

    return router


def _study_routes(desk: Desk) -> APIRouter:
    router = _router()

    @router.post("/studies", status_code=201)
    def begin(asked: Asked) -> dict[str, Any]:
        """Begin a sitting."""
        return desk.begin_study(**asked.model_dump()).told()

    @router.get("/studies/{sitting}")
    def told(sitting: str) -> dict[str, Any]:
        """Where a sitting is."""
        return desk.sitting(sitting).told()

    @router.get("/studies/{sitting}/{number}.png", response_class=Response)
    def shown(sitting: str, number: int) -> Response:
        """What is shown at a question."""
        return _png(desk.study_picture(sitting, number), NEVER)

    @router.post("/studies/{sitting}/{number}")
    def answer(sitting: str, number: int, answered: Answered) -> dict[str, Any]:
        """Answer a question."""
        return desk.sitting(sitting).answer(number, answered.answer, answered.seconds)

    @router.get("/studies/{sitting}/answers.csv", response_class=Response)
    def table(sitting: str) -> Response:
        """The answers so far."""
        headers = {"content-disposition": "attachment; filename=answers.csv", **NEVER}
        return Response(desk.sitting(sitting).table(), media_type="text/csv", headers=headers)

    return router


def _found(desk: Desk, name: str) -> Job:
    job = desk.jobs.get(name)
    if job is None:
        raise HTTPException(404, "there is no such job any more")
    return job


def _pages(app: FastAPI, desk: Desk) -> None:
    """One page whose script reads the address; and what it is made of."""
    document = STATIC.joinpath("index.html").read_text(encoding="utf-8")
    fragments = files("convscope.views").joinpath("fragments.css").read_text(encoding="utf-8")
    page = Response(document, media_type="text/html; charset=utf-8", headers={"cache-control": "no-cache"})

    @app.get("/fragments.css", include_in_schema=False)
    def styles() -> Response:
        return Response(fragments, media_type="text/css", headers={"cache-control": "no-cache"})

    def shown() -> Response:
        return page

    for name in PAGES:
        app.add_api_route(f"/{name}", shown, include_in_schema=False)
        if name:
            app.add_api_route(f"/{name}/{{rest:path}}", shown, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=str(STATIC)), name="static")
    bokeh = desk.bokeh()
    if bokeh is not None:
        app.mount("/bokeh", StaticFiles(directory=str(bokeh)), name="bokeh")
