"""A dashboard of Ray's, as far as a job is sent to it and followed, that answers as a test has it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from aiohttp import web


async def for_ever() -> None:
    await asyncio.Event().wait()


class FakeDashboard:
    """Takes jobs, which all say `log`. silent: it answers nothing more, and no connection breaks. forgets: it knows
    no job any more, as a head that was started anew. taking: what is awaited before the answer that a job is taken."""

    def __init__(self, log: str = "") -> None:
        self.log = log
        self.status = "RUNNING"
        self.silent = False
        self.forgets = False
        self.jobs: list[str] = []
        self.metadata: dict[str, Mapping[str, str]] = {}
        self.taking: Callable[[], Awaitable[None]] | None = None
        self.tails = 0
        self.address = ""

    @web.middleware
    async def _heard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.silent:
            await for_ever()
        return await handler(request)

    async def _version(self, request: web.Request) -> web.Response:
        said = {"version": "4", "ray_version": "2.60.0", "ray_commit": "", "session_name": ""}
        return web.json_response(said)

    async def _package(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _take(self, request: web.Request) -> web.Response:
        sent = await request.json()
        job = sent["submission_id"]
        self.jobs.append(job)
        self.metadata[job] = sent["metadata"]
        if self.taking:
            await self.taking()
        return web.json_response({"job_id": job, "submission_id": job})

    def _details(self, job: str) -> Mapping[str, Any]:
        known = {"type": "SUBMISSION", "submission_id": job, "entrypoint": "", "message": ""}
        return {**known, "status": self.status, "metadata": self.metadata.get(job)}

    async def _info(self, request: web.Request) -> web.Response:
        if self.forgets:
            return web.Response(text=f"Job {request.match_info['job']} does not exist", status=404)
        return web.json_response(self._details(request.match_info["job"]))

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response([self._details(job) for job in self.jobs])

    async def _tail(self, request: web.Request) -> web.StreamResponse:
        """Of the first that asks the connection breaks unheard; the next get all that there is, and the end."""
        if self.forgets:
            return await self._info(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.tails += 1
        await socket.send_str(self.log)
        if self.tails == 1:
            await for_ever()
        return socket

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._heard])
        app.router.add_get("/api/version", self._version)
        app.router.add_route("*", "/api/packages/{protocol}/{name}", self._package)
        app.router.add_post("/api/jobs/", self._take)
        app.router.add_get("/api/jobs/", self._list)
        app.router.add_get("/api/jobs/{job}", self._info)
        app.router.add_get("/api/jobs/{job}/logs/tail", self._tail)
        return app


@contextmanager
def serving(dashboard: FakeDashboard) -> Iterator[None]:
    """While the block runs it is at `dashboard.address`."""
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def serve() -> web.AppRunner:
        runner = web.AppRunner(dashboard.app(), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        dashboard.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    def run() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(serve())
        ready.set()
        loop.run_forever()
        for waiting in asyncio.all_tasks(loop):
            waiting.cancel()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
