"""As much of the Hub as its clients need for reading, served out of a folder on 127.0.0.1.

    ROOT/models/OWNER/NAME/...
    ROOT/datasets/OWNER/NAME/...

A repository has one revision, `main`; its commit is a hash of its files.
"""

from __future__ import annotations

import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NAME = r"([\w-][\w.-]*(?:/[\w-][\w.-]*)?)"
API = re.compile(rf"/api/(models|datasets)/{NAME}(?:/(revision|tree)/([^/]+)(?:/(.+))?)?")
FILE = re.compile(rf"/(?:(datasets)/)?{NAME}/resolve/([^/]+)/(.+)")


class HubServer:
    """A Hub for as long as the `with` block lasts; afterwards nothing answers at its address.

    Args:
        root: folder of the repositories.

    Attributes:
        url: what `HF_ENDPOINT` has to be.
        requests: what was asked for, as `METHOD path`.
        broken: requests whose path ends like one of these fail with 520, a status that the clients do not retry.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []
        self.broken: set[str] = set()

    def __enter__(self) -> HubServer:
        handler = type("BoundHandler", (HubHandler,), {"hub": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def commit(self, kind: str, name: str) -> str:
        """The commit of a repository; `kind` is `models` or `datasets`."""
        return Repository(name, self.root / kind / name).commit


class Refusal(Exception):
    """An answer other than 200, with the code by which the clients know what is missing."""

    def __init__(self, status: int, code: str, commit: str | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": code}
        if commit is not None:
            self.headers["X-Repo-Commit"] = commit


class Repository:
    """The files of a model or a data set."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}

    @property
    def commit(self) -> str:
        return sha1("".join(f"{name} {sha1(path.read_bytes())}\n" for name, path in self.files.items()).encode())

    def info(self) -> dict[str, Any]:
        return {
            "id": self.name,
            "sha": self.commit,
            "private": False,
            "gated": False,
            "tags": [],
            "siblings": [{"rfilename": name} for name in self.files],
        }

    def file(self, name: str) -> bytes:
        if name not in self.files:
            raise Refusal(404, "EntryNotFound", self.commit)
        return self.files[name].read_bytes()

    def entries(self) -> dict[str, dict[str, Any]]:
        """Every file and folder, as the tree shows it."""
        found = {
            str(folder): {"type": "directory", "path": str(folder), "oid": sha1(str(folder).encode()), "size": 0}
            for name in self.files
            for folder in PurePosixPath(name).parents
        }
        for name, path in self.files.items():
            content = path.read_bytes()
            found[name] = {"type": "file", "path": name, "oid": sha1(content), "size": len(content)}
        return found

    def tree(self, folder: str, recursive: bool) -> list[dict[str, Any]]:
        entries = self.entries()
        if entries.get(folder, {}).get("type") != "directory":
            raise Refusal(404, "EntryNotFound", self.commit)
        below = {name: [str(parent) for parent in PurePosixPath(name).parents] for name in entries}
        return [entry for name, entry in entries.items() if folder in (below[name] if recursive else below[name][:1])]


class HubHandler(BaseHTTPRequestHandler):
    """The routes of `hf_hub_download` and of the reading methods of `HfApi`."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        address = urlsplit(self.path)
        try:
            if address.path.endswith(tuple(self.hub.broken)):
                raise Refusal(520, "Unknown")
            if match := API.fullmatch(address.path):
                content = self.api(match, parse_qs(address.query))
                self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})
            elif match := FILE.fullmatch(address.path):
                repository = self.repository(match[1] or "models", match[2], match[3])
                file = repository.file(unquote(match[4]))
                self.send(200, file, {"ETag": f'"{sha1(file)}"', "X-Repo-Commit": repository.commit})
            else:
                raise Refusal(404, "RepoNotFound")
        except Refusal as refusal:
            self.send(refusal.status, b"", refusal.headers)

    def api(self, match: re.Match[str], query: dict[str, list[str]]) -> Any:
        kind, name, route, revision, folder = match.groups()
        repository = self.repository(kind, name, revision)
        if route == "tree":
            return repository.tree(unquote(folder or "."), query.get("recursive", ["false"])[0].lower() == "true")
        return repository.info()

    def repository(self, kind: str, name: str, revision: str | None) -> Repository:
        folder = self.hub.root / kind / name
        if not folder.is_dir():
            raise Refusal(404, "RepoNotFound")
        found = Repository(name, folder)
        if revision not in {None, "main", found.commit}:
            raise Refusal(404, "RevisionNotFound")
        return found

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr; `HubServer.requests` is the log."""


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
