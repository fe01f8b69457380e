"""A session of the page as a program uses it: calls by name, whose answers share one stream."""

import json
import threading
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from .loopback import JSON, asked, connection, open_page, page_config


class Refused(Exception):
    """A call that the page did not carry out, with its sentence."""


@dataclass(frozen=True)
class Call:
    """A call, accepted by the queue or not."""

    event: str
    """Its identifier; empty where the queue does not accept it."""
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
        endpoints = page_config(port)["dependencies"]
        self._endpoints = {one["api_name"]: one["id"] for one in endpoints if one["api_name"]}
        self._page = open_page(port, self.name)

    def submit(self, name: str, data: Sequence[Any]) -> Call:
        """Call a public endpoint."""
        endpoint, answer = self._endpoints[name], Future[Any]()
        body = {"data": data, "fn_index": endpoint, "session_hash": self.name}
        with self._lock:  # the answer may be in the stream before the call's identifier is known
            try:
                event = self._post("queue/join", body)["event_id"]
            except Refused as error:
                answer.set_exception(error)
                return Call("", endpoint, answer)
            self._waiting[event] = answer
            if not self._reading:
                self._reading = True
                threading.Thread(target=self._read, daemon=True).start()
        return Call(event, endpoint, answer)

    def cancel(self, call: Call) -> None:
        """Stop a call, as its button on the page does; one that was not accepted is over."""
        if call.event:
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
        """Read streams until no call waits; each ends when the queue has no call of the session.

        Where a stream breaks off, all calls that wait get its error.
        """
        while self._reading:
            broken = None
            try:
                self._read_stream()
            except (OSError, HTTPException, ValueError) as error:
                broken = error
            with self._lock:
                if broken:
                    for answer in self._waiting.values():
                        answer.set_exception(broken)
                    self._waiting.clear()
                self._reading = bool(self._waiting)

    def _read_stream(self) -> None:
        with connection(self._port) as stream:
            stream.request("GET", f"/gradio_api/queue/data?session_hash={self.name}")
            for line in stream.getresponse():
                if line.startswith(b"data: "):
                    self._receive(json.loads(line.removeprefix(b"data: ")))

    def _receive(self, message: Mapping[str, Any]) -> None:
        """Hand an answer to the call that waits for it."""
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
