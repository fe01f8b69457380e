"""A session of the page as a program has it: calls by name, whose answers share one stream."""

import json
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any

from .loopback import HANG_S, JSON, asked, connected

LARGEST = 10_000_000
"""Bytes of the page's configuration at most."""


class Refused(Exception):
    """A call that the page did not carry out, with its sentence."""


@dataclass(frozen=True)
class Call:
    """A call, taken into the queue or not."""

    event: str
    """Its number; empty where the queue does not take it."""
    endpoint: int
    answer: Future[Any]
    """What the endpoint returns, or `Refused`."""


class Session:
    """A session whose page is open until it is closed."""

    def __init__(self, port: int) -> None:
        self.name = uuid.uuid4().hex
        self._port, self._lock = port, threading.Lock()
        self._waiting: dict[str, Future[Any]] = {}
        self._reading = False
        _, config = asked(port, "GET", "/config", size=LARGEST)
        endpoints = json.loads(config)["dependencies"]
        self._endpoints = {one["api_name"]: one["id"] for one in endpoints if one["api_name"]}
        self._page = ExitStack()
        self._page.enter_context(connected(port, self.name))

    def submit(self, name: str, data: Sequence[Any]) -> Call:
        """Ask for a public endpoint."""
        endpoint = self._endpoints[name]
        body = {"data": data, "fn_index": endpoint, "session_hash": self.name}
        with self._lock:  # the answer may be in the stream before the number of the call is known
            try:
                taken = self._post("queue/join", body)
            except Refused as error:
                call = Call("", endpoint, Future())
                call.answer.set_exception(error)
                return call
            call = Call(taken["event_id"], endpoint, Future())
            self._waiting[call.event] = call.answer
            if not self._reading:
                self._reading = True
                threading.Thread(target=self._read, daemon=True).start()
        return call

    def cancel(self, call: Call) -> None:
        """Stop a call, as its button on the page does; one that was not taken is over."""
        if not call.event:
            return
        body = {"session_hash": self.name, "fn_index": call.endpoint, "event_id": call.event}
        self._post("cancel", body)

    def close(self) -> None:
        """Leave the page."""
        self._page.close()

    def _post(self, route: str, body: Mapping[str, Any]) -> Any:
        path = f"/gradio_api/{route}"
        status, answer = asked(self._port, "POST", path, json.dumps(body).encode(), JSON)
        if status != 200:
            raise Refused(answer.decode("utf-8", "replace"))
        return json.loads(answer)

    def _read(self) -> None:
        """Hand out what the streams say, each of which ends when the queue has no call left."""
        left: Mapping[str, Future[Any]] = {}
        reason: Exception | None = None
        while self._reading:
            try:
                self._read_one()
            except (OSError, HTTPException, ValueError) as error:
                reason = error
            with self._lock:
                if reason:
                    left, self._waiting = self._waiting, {}
                self._reading = bool(self._waiting)
        for answer in left.values():
            answer.set_exception(reason)

    def _read_one(self) -> None:
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=HANG_S)) as stream:
            stream.request("GET", f"/gradio_api/queue/data?session_hash={self.name}")
            for line in stream.getresponse():
                if line.startswith(b"data: "):
                    self._hear(json.loads(line[len(b"data: ") :]))

    def _hear(self, message: Mapping[str, Any]) -> None:
        if message["msg"] != "process_completed":
            return
        with self._lock:
            answer = self._waiting.pop(message["event_id"], None)
        if answer is None:
            return
        if message["success"]:
            answer.set_result((message["output"].get("data") or [None])[0])
        else:
            answer.set_exception(Refused(str(message["output"].get("error"))))
