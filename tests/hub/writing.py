"""As much of the Hub as its clients need for writing: accounts, repositories, commits, large files, branches."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from xet import XetStore

NAME = r"([\w-][\w.-]*/[\w-][\w.-]*)"
WRITING = re.compile(rf"/api/models/{NAME}/(preupload|commit|branch)/([^/]+)")
BATCH = re.compile(rf"/{NAME}\.git/info/lfs/objects/batch")
LARGE = re.compile(r"/lfs/([0-9a-f]{64})")
LARGE_ENDINGS = (".safetensors", ".bin")
LICENSES = {"apache-2.0", "mit", "cc-by-4.0"}
PIPELINES = {"sentence-similarity", "text-ranking"}
REPOSITORY_ID = re.compile(r"([\w.-]+/)?[\w.-]+")


class Refusal(Exception):
    """An answer other than 200, with the code by which the clients know what is missing."""

    def __init__(self, status: int, code: str, commit: str | None = None, body: Any = None, **headers: str) -> None:
        super().__init__(code)
        self.status = status
        self.body = body
        self.headers = {"X-Error-Code": code, "X-Error-Message": code, **headers}
        if commit is not None:
            self.headers["X-Repo-Commit"] = commit


@dataclass
class Account:
    """Whose a token is, and what it may do: `write` or `read`, or a number of things of its own (`fineGrained`).

    `orgs` are the user's organisations, None for a Hub that does not name them.
    """

    user: str
    role: str
    orgs: tuple[str, ...] | None = None


@dataclass
class Shelf:
    """What is written to: repositories below `ROOT/models`, branches below `ROOT/branches`, large files in memory.

    Args:
        xet: where the large files of clients with hf_xet are.
        accounts: by token.
        private: repositories that only their owner sees.
        private_by_default: whether new ones are private that are made without a wish.
        objects: large files by their SHA-256.
        commits: what was committed to, as `NAME@BRANCH`.
    """

    root: Path
    xet: XetStore
    accounts: dict[str, Account] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    private_by_default: bool = False
    objects: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)

    def folder(self, name: str, branch: str = "main") -> Path:
        return self.root / "models" / name if branch == "main" else self.root / "branches" / name / branch

    def answer(self, path: str, body: bytes, account: Account | None, url: str) -> Any:
        """The answer to a POST or PUT.

        Raises:
            Refusal: nobody with a token, the wrong one, or a thing that is not there.
        """
        if path == "/api/validate-yaml":
            return validate(json.loads(body)["content"])
        if match := LARGE.fullmatch(path):  # its address is known to those only who asked for it with a token
            if hashlib.sha256(body).hexdigest() != match[1]:
                raise Refusal(400, "Checksum")
            self.objects[match[1]] = body
            return {}
        if account is None:
            raise Refusal(401, "Invalid username or password.")
        if path == "/api/repos/create":
            return self.create(json.loads(body), account, url)
        if match := BATCH.fullmatch(path):
            self.check(match[1], account)
            return self.batch(json.loads(body), url)
        if match := WRITING.fullmatch(path):
            name, action, branch = match.groups()
            self.check(name, account)
            if action == "branch":
                return self.branch(name, branch)
            if not self.folder(name, branch).is_dir():
                raise Refusal(404, "RevisionNotFound")
            if action == "preupload":
                return self.preupload(self.folder(name, branch), json.loads(body))
            return self.commit(name, branch, [json.loads(line) for line in body.splitlines()], url)
        raise Refusal(404, "RepoNotFound")

    def large(self, sha256: str, size: int) -> bytes:
        return self.objects[sha256] if sha256 in self.objects else self.xet.read(sha256, size)

    def check(self, name: str, account: Account | None) -> None:
        if account is None:
            raise Refusal(401, "Invalid username or password.")
        if account.role != "write" or name.partition("/")[0] != account.user:
            raise Refusal(403, "You don't have the rights to create a model under this namespace")
        if not self.folder(name).is_dir():
            raise Refusal(404, "RepoNotFound")

    def create(self, wanted: dict[str, Any], account: Account, url: str) -> Any:
        name = f"{wanted['organization'] or account.user}/{wanted['name']}"
        if account.role != "write" or name.partition("/")[0] != account.user:
            raise Refusal(403, "You don't have the rights to create a model under this namespace")
        content = {"url": f"{url}/{name}", "name": name}
        if self.folder(name).is_dir():
            raise Refusal(409, "You already created this model repo", body=content)
        self.folder(name).mkdir(parents=True)
        (self.folder(name) / ".gitattributes").write_text("*.safetensors filter=lfs\n", encoding="utf-8")
        if wanted.get("visibility", "private" if self.private_by_default else "public") == "private":
            self.private.add(name)
        return content

    def batch(self, wanted: dict[str, Any], url: str) -> Any:
        objects = [dict(entry) for entry in wanted["objects"]]
        for entry in objects:
            if entry["oid"] not in self.objects:
                entry["actions"] = {"upload": {"href": f"{url}/lfs/{entry['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def branch(self, name: str, branch: str) -> Any:
        if self.folder(name, branch).is_dir():
            raise Refusal(409, "Reference already exists", body={})
        shutil.copytree(self.folder(name), self.folder(name, branch))
        return {}

    def preupload(self, folder: Path, wanted: dict[str, Any]) -> Any:
        files = []
        for entry in wanted["files"]:
            large = entry["path"].endswith(LARGE_ENDINGS)
            there = folder / entry["path"]
            oid = object_id(there.read_bytes(), large) if there.is_file() else None
            mode = "lfs" if large else "regular"
            files.append({"path": entry["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": files}

    def commit(self, name: str, branch: str, lines: list[dict[str, Any]], url: str) -> Any:
        folder = self.folder(name, branch)
        for line in lines:
            value = line["value"]
            if line["key"] == "deletedFile":
                (folder / value["path"]).unlink()
            if line["key"] in {"file", "lfsFile"}:
                large = line["key"] == "lfsFile"
                content = self.large(value["oid"], value["size"]) if large else base64.b64decode(value["content"])
                path = folder / value["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        self.commits.append(f"{name}@{branch}")
        return {"commitUrl": f"{url}/{name}/commit/{branch}", "commitOid": "0" * 40}


def object_id(content: bytes, large: bool) -> str:
    """What git calls a file: the SHA-256 of a large one, else the SHA-1 of a blob."""
    if large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def validate(card: str) -> Any:
    """Refuse front matter that the Hub would refuse."""
    errors = []
    data = yaml.safe_load(card.split("---\n")[1])
    if data.get("license", "mit") not in LICENSES:
        errors.append('"license" must be one of the Hub\'s licenses')
    if data.get("pipeline_tag") not in PIPELINES | {None}:
        errors.append('"pipeline_tag" must be a task')
    for key in ("base_model", "datasets"):
        names = data.get(key, [])
        if not all(REPOSITORY_ID.fullmatch(name) for name in ([names] if isinstance(names, str) else names)):
            errors.append(f'"{key}" must hold ids of the Hub')
    for model in data.get("model-index", []):
        for result in model["results"]:
            if not (result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]):
                errors.append('"model-index" lacks a task or a data set')
            if not all(metric["type"] and isinstance(metric["value"], float) for metric in result["metrics"]):
                errors.append('"model-index" lacks a metric')
    content = {"errors": [{"message": message} for message in errors], "warnings": []}
    if errors:
        raise Refusal(400, "Invalid metadata", body=content)
    return content
