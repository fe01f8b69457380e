"""A Hugging Face Hub on the loopback, as far as runs are pushed and pulled: repositories of files
behind the same addresses, for the real client.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

SHA = "a" * 40
TOKEN = "hf_standin"


class StandIn:
    """The repositories: files by name, by repository. `private` holds those made so."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.sent: list[str] = []
        """What was fetched."""
        self.url = ""


@contextmanager
def hub() -> Iterator[StandIn]:
    """Serve a stand-in meanwhile."""
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _send(self, status: int, content: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _answer(self, value: Any) -> None:
            self._send(200, json.dumps(value).encode(), Content_Type="application/json")

        def _read(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            name, _, rest = path.removeprefix("api/models/").partition("/resolve/")
            name = "/".join(name.split("/")[:2])
            files = stand_in.repositories.get(name)
            if files is None:
                self._send(404, X_Error_Code="RepoNotFound")
            elif rest:
                self._file(files, rest.partition("/")[2])
            else:
                siblings = [{"rfilename": p, "size": len(c)} for p, c in files.items()]
                info = {"id": name, "sha": SHA, "private": name in stand_in.private}
                self._answer(info | {"siblings": siblings})

        def _file(self, files: dict[str, bytes], file: str) -> None:
            if file not in files:
                self._send(404, X_Error_Code="EntryNotFound")
                return
            if self.command == "GET":
                stand_in.sent.append(file)
            self._send(200, files[file], ETag=f'"{hash(files[file]):x}"', X_Repo_Commit=SHA)

        def do_POST(self) -> None:
            path, body = urlsplit(self.path).path, self._read()
            if path == "/api/validate-yaml":
                self._answer({"errors": [], "warnings": []})
                return
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._send(403)
            elif path == "/api/repos/create":
                self._create(json.loads(body))
            elif "/preupload/" in path:
                files = [f["path"] for f in json.loads(body)["files"]]
                how = {"uploadMode": "regular", "shouldIgnore": False}
                self._answer({"files": [{"path": file} | how for file in files]})
            else:
                self._commit("/".join(path.split("/")[3:5]), body)

        def _create(self, asked: dict[str, Any]) -> None:
            name = f"{asked['organization']}/{asked['name']}"
            known = name in stand_in.repositories
            if not known and (asked.get("private") or asked.get("visibility") == "private"):
                stand_in.private.add(name)
            stand_in.repositories.setdefault(name, {})
            url = {"url": f"{stand_in.url}/{name}"}
            self._send(409 if known else 200, json.dumps(url).encode())

        def _commit(self, name: str, body: bytes) -> None:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    stand_in.repositories[name][line["value"]["path"]] = content
            self._answer(
                {
                    "success": True,
                    "commitOid": SHA,
                    "commitUrl": f"{stand_in.url}/{name}/commit/{SHA}",
                }
            )

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
