"""As much of the Hub as its clients need, served out of a folder on 127.0.0.1; `writing` holds what changes it.

    ROOT/models/OWNER/NAME/...
    ROOT/datasets/OWNER/NAME/...
    ROOT/branches/OWNER/NAME/BRANCH/...

A repository's revisions are `main` and its branches; the commit of each is a hash of its files.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import struct
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from writing import Account, Refusal, Shelf
from xet import XetStore

NAME = r"([\w-][\w.-]*(?:/[\w-][\w.-]*)?)"
API = re.compile(rf"/api/(models|datasets)/{NAME}(?:/(revision|tree)/([^/]+)(?:/(.+))?)?")
XET = re.compile(rf"/api/models/{NAME}/xet-(read|write)-token/([^/]+)")
FILE = re.compile(rf"/(?:(datasets)/)?{NAME}/resolve/([^/]+)/(.+)")


class HubServer:
    """A Hub for as long as the `with` block lasts; afterwards nothing answers at its address.

    Args:
        root: folder of the repositories.

    Attributes:
        url: what `HF_ENDPOINT` has to be.
        requests: what was asked for, as `METHOD path`.
        broken: requests whose path ends like one of these fail with 520, a status that the clients do not retry.
        gated: repositories whose files nobody may have.
        resets: parts of paths, and how often a request with such a path finds its connection torn, once half of its
            content is read.
        refusals: beginnings of `METHOD path`, and what such requests are refused with, one after another; once there is
            none left, they are answered.
        shelf: what is written to, and by whom.
        xet: the large files of clients that have hf_xet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.xet = XetStore(root / "xet")
        self.requests: list[str] = []
        self.broken: set[str] = set()
        self.gated: set[str] = set()
        self.resets: dict[str, int] = {}
        self.refusals: dict[str, Iterator[Refusal]] = {}
        self.shelf = Shelf(root, self.xet)

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

    def push(self, name: str, folder: Path, keep: bool = True, kind: str = "models") -> None:
        """Move a repository's `main` to the files of a folder; the commit before stays there unless `keep` is false."""
        main = self.root / kind / name
        if keep:
            main.rename(self.branch(name, f"before-{self.commit(kind, name)}"))
        else:
            shutil.rmtree(main)
        shutil.copytree(folder, main)

    def branch(self, name: str, branch: str) -> Path:
        """Where a branch of a repository is; its parents are made."""
        path = self.root / "branches" / name / branch
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def commit(self, kind: str, name: str) -> str:
        """The commit of a repository; `kind` is `models` or `datasets`."""
        return Repository(name, self.root / kind / name).commit


class Repository:
    """The files of a model or a data set."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}

    @property
    def commit(self) -> str:
        return sha1("".join(f"{name} {sha1(path.read_bytes())}\n" for name, path in self.files.items()).encode())

    def info(self, private: bool = False) -> dict[str, Any]:
        return {
            "id": self.name,
            "sha": self.commit,
            "private": private,
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
    """The routes of `hf_hub_download` and of the methods of `HfApi`."""

    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.change()

    def do_PUT(self) -> None:
        self.change()

    def change(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        path = unquote(urlsplit(self.path).path)
        length = int(self.headers["Content-Length"])
        for part in self.hub.resets:
            if part in path and self.hub.resets[part] > 0:
                self.hub.resets[part] -= 1
                self.rfile.read(length // 2)
                self.tear()
                return
        body = self.rfile.read(length)
        try:
            self.refuse()
            self.send_json(200, self.hub.shelf.answer(path, body, self.account(), self.hub.url))
        except Refusal as refusal:
            self.send_json(refusal.status, refusal.body, refusal.headers)

    def account(self) -> Account | None:
        """Whose token came with a request."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.shelf.accounts:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.hub.shelf.accounts.get(token)

    def refuse(self) -> None:
        """Refuse a request for as long as the Hub is told to."""
        for beginning, refusals in self.hub.refusals.items():
            if f"{self.command} {self.path}".startswith(beginning) and (refusal := next(refusals, None)):
                raise refusal

    def tear(self) -> None:
        """End the connection as a machine does that is switched off: with a reset, not with a farewell."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def answer(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        address = urlsplit(self.path)
        try:
            self.refuse()
            if address.path.endswith(tuple(self.hub.broken)):
                raise Refusal(520, "Unknown")
            if address.path == "/api/whoami-v2":
                self.send_json(200, self.whoami())
            elif match := XET.fullmatch(address.path):
                self.send_json(200, *self.xet_token(*match.groups()))
            elif match := API.fullmatch(address.path):
                self.send_json(200, self.api(match, parse_qs(address.query)))
            elif match := FILE.fullmatch(address.path):
                repository = self.repository(match[1] or "models", match[2], match[3])
                if match[2] in self.hub.gated:
                    raise Refusal(403, "GatedRepo")
                file = repository.file(unquote(match[4]))
                headers = {"ETag": f'"{sha1(file)}"', "X-Repo-Commit": repository.commit}
                self.send(200, file, headers | self.xet_headers(repository, file))
            else:
                raise Refusal(404, "RepoNotFound")
        except Refusal as refusal:
            self.send(refusal.status, b"", refusal.headers)

    def api(self, match: re.Match[str], query: dict[str, list[str]]) -> Any:
        kind, name, route, revision, folder = match.groups()
        repository = self.repository(kind, name, revision)
        if route == "tree":
            return repository.tree(unquote(folder or "."), query.get("recursive", ["false"])[0].lower() == "true")
        return repository.info(name in self.hub.shelf.private)

    def xet_token(self, name: str, purpose: str, revision: str) -> tuple[Any, dict[str, str]]:
        self.repository("models", name, revision)
        if purpose == "write":
            self.hub.shelf.check(name, self.account())
        return self.hub.xet.token()

    def xet_headers(self, repository: Repository, file: bytes) -> dict[str, str]:
        """What tells a client that a file can be had from the Xet store."""
        sha256 = hashlib.sha256(file).hexdigest()
        if (xet_hash := self.hub.xet.hashes().get(sha256)) is None:
            return {}
        route = f"{self.hub.url}/api/models/{repository.name}/xet-read-token/{repository.commit}"
        return {
            "X-Xet-Hash": xet_hash,
            "X-Xet-Refresh-Route": route,
            "X-Linked-Etag": f'"{sha256}"',
            "X-Linked-Size": str(len(file)),
        }

    def whoami(self) -> dict[str, Any]:
        account = self.account()
        if account is None:
            raise Refusal(401, "Invalid username or password.")
        orgs = {} if account.orgs is None else {"orgs": [{"name": name} for name in account.orgs]}
        return {"name": account.user, "auth": {"accessToken": {"role": account.role}}, **orgs}

    def repository(self, kind: str, name: str, revision: str | None) -> Repository:
        account = self.account()
        hidden = name in self.hub.shelf.private and (account is None or account.user != name.partition("/")[0])
        folder = self.hub.root / kind / name
        if not folder.is_dir() or hidden:
            raise Refusal(404, "RepoNotFound")
        branches = sorted((self.hub.root / "branches" / name).glob("*"))
        for branch, place in [("main", folder), *((path.name, path) for path in branches)]:
            found = Repository(name, place)
            if revision in {branch, found.commit} or (revision is None and branch == "main"):
                return found
        raise Refusal(404, "RevisionNotFound")

    def send_json(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send(status, body, {"Content-Type": "application/json", **(headers or {})})

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
