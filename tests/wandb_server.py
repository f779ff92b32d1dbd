"""As much of W&B's server as its client needs to upload a run or save a view: it keeps what comes, and tells of the last row it has."""

import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """What was asked of it, and what it has; `refusing` answers everything with 401."""

    def __init__(self, refusing: bool = False) -> None:
        self.refusing = refusing
        self.rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        """By run id, in the order of arrival."""
        self.configs: dict[str, dict[str, Any]] = {}
        self.projects: set[str] = set()
        self.alerts: list[dict[str, Any]] = []
        self.views: list[dict[str, Any]] = []
        """What was asked to be saved."""
        self.authorizations: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator["Server"]:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        yield self
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: Any) -> dict[str, Any]:
        if path == "/graphql":
            (operation,) = re.findall(r"(?:query|mutation)\s+(\w+)", body["query"])[:1]
            return {"data": getattr(self, f"_{operation}", lambda **variables: {})(**body.get("variables") or {})}
        if path.endswith("/file_stream") and "wandb-history.jsonl" in body.get("files", {}):
            history = body["files"]["wandb-history.jsonl"]
            rows = self.rows[path.split("/")[-2]]
            rows[history["offset"] :] = map(json.loads, history["content"])
        return {}

    def _RunResumeStatus(self, project: str, name: str, **variables: Any) -> dict[str, Any]:
        return {"model": self._project(project) | {"bucket": self._bucket(name, project) if name in self.configs else None}}

    def _UpsertBucket(self, name: str, project: str, config: str, **variables: Any) -> dict[str, Any]:
        is_new = name not in self.configs
        self.configs.setdefault(name, {}).update(json.loads(config))
        self.projects.add(project)
        return {"upsertBucket": {"bucket": self._bucket(name, project), "inserted": is_new}}

    def _CreateRunFiles(self, files: list[str], **variables: Any) -> dict[str, Any]:
        made = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in files]
        return {"createRunFiles": {"runID": "id", "uploadHeaders": [], "files": made}}

    def _Viewer(self, **variables: Any) -> dict[str, Any]:
        return {"viewer": {"id": "id", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}

    def _NotifyScriptableRunAlert(self, **variables: Any) -> dict[str, Any]:
        self.alerts.append(variables)
        return {"notifyScriptableRunAlert": {"success": True}}

    def _UpsertView2(self, **variables: Any) -> dict[str, Any]:
        self.views.append(variables)
        return {"upsertView": {"view": {"id": "id", "name": variables["name"]}, "inserted": True}}

    def _bucket(self, name: str, project: str) -> dict[str, Any]:
        rows = self.rows[name]
        lengths = {"historyLineCount": len(rows), "eventsLineCount": 0, "logLineCount": 0}
        tails = {"historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]), "eventsTail": "[]"}
        about = {
            "id": "id",
            "name": name,
            "displayName": name,
            "config": "{}",
            "summaryMetrics": "{}",
            "wandbConfig": '{"t": 1}',
            "tags": [],
        }
        return about | lengths | tails | {"project": self._project(project)}

    def _project(self, name: str) -> dict[str, Any]:
        return {"id": "id", "name": name, "entity": {"id": "id", "name": "me"}}


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.authorizations.add(self.headers.get("Authorization", ""))
            is_file = self.path.startswith("/upload/")
            answer = {"errors": [{"message": "no"}]} if server.refusing else {} if is_file else server.answer(self.path, json.loads(body))
            content = json.dumps(answer).encode()
            self.send_response(401 if server.refusing else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_PUT = do_POST

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler
