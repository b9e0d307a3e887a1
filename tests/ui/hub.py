"""A hub on loopback: it knows of repositories and commits what huggingface_hub's uploads need."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Hub:
    """What was created and committed."""

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.url = ""


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub for as long as the block lasts."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/api/models/").split("?")[0]
            self._answer({"id": name, "modelId": name, "private": hub.private[name], "sha": "0" * 40, "siblings": []})

        def do_PUT(self) -> None:
            hub.objects[self.path.rsplit("/", 1)[-1]] = self._body()
            self._answer({})

        def do_POST(self) -> None:
            hub.tokens.add(self.headers["Authorization"])
            body = self._body()
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                hub.private.setdefault(name, asked.get("visibility") == "private" or bool(asked.get("private")))
                self._answer({"url": f"{hub.url}/{name}", "id": name})
            elif self.path.endswith("/preupload/main"):
                files = json.loads(body)["files"]
                self._answer(
                    {
                        "files": [
                            {"path": f["path"], "uploadMode": self._mode(f["path"]), "shouldIgnore": False}
                            for f in files
                        ]
                    }
                )
            elif self.path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {**entry, "actions": {"upload": {"href": f"{hub.url}/lfs/{entry['oid']}"}}}
                    for entry in json.loads(body)["objects"]
                ]
                self._answer({"transfer": "basic", "objects": objects})
            elif self.path == "/api/validate-yaml":
                self._answer({"errors": [], "warnings": []})
            else:
                for line in body.splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        hub.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                    elif entry["key"] == "lfsFile":
                        hub.files[entry["value"]["path"]] = hub.objects[entry["value"]["oid"]]
                repository = self.path.removeprefix("/api/models/").removesuffix("/commit/main")
                url = f"{hub.url}/{repository}/commit/{'0' * 40}"
                self._answer({"commitUrl": url, "commitOid": "0" * 40, "success": True})

        def _mode(self, path: str) -> str:
            return "lfs" if path.endswith(".safetensors") else "regular"

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _answer(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
