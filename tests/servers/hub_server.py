"""A small Hugging Face Hub on loopback: enough of it for the unmodified huggingface_hub, with and without Xet.

Repositories are kept in memory as a line of commits, each a mapping from path to file; large files lie in a folder by
their SHA-256, or in a Xet store that hf_xet itself writes and reads (`local://`).
"""

import base64
import hashlib
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import hf_xet
from loopback_server import LoopbackServer

SMALL = 10_000
"""Larger files, and tables, are large files."""


@dataclass(frozen=True)
class File:
    size: int
    sha256: str | None = None
    data: bytes = b""

    @property
    def oid(self) -> str:
        data = self.data if self.sha256 is None else self.sha256.encode()
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass
class Repository:
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    log: list[tuple[str, str, str]] = field(default_factory=list)
    """Commit, summary, description."""
    refs: dict[str, str] = field(default_factory=dict)
    """`main`, `refs/pr/1`."""
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[int, dict[str, Any]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, File], summary: str = "", description: str = "") -> str:
        made = hashlib.sha1(f"{len(self.log)}{branch}".encode(), usedforsecurity=False).hexdigest()
        self.commits[made] = files
        self.log.append((made, summary, description))
        self.refs[branch] = made
        return made

    def find(self, revision: str) -> str | None:
        known = {**self.refs, **self.tags}
        return known.get(revision, revision if revision in self.commits else None)


@dataclass
class Hub(LoopbackServer):
    folder: Path
    xet: bool
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    faults: list[tuple[Callable[[str, str], bool], str]] = field(default_factory=list)
    """Once each: which request, and `status:503`, `lose the answer`, `reset`."""
    before_commit: Callable[[], None] | None = None
    user: dict[str, Any] = field(
        default_factory=lambda: {
            "type": "user",
            "name": "publisher",
            "orgs": [{"name": "clay"}],
            "auth": {"accessToken": {"role": "write"}},
        }
    )
    """Whose token every request has."""
    _lock: Lock = field(default_factory=Lock)

    def received(self) -> int:
        """Bytes that were sent here as large files."""
        return sum(size for method, path, size in self.requests if method == "PUT" and path.startswith("/lfs/"))

    def handle(self, client: BaseHTTPRequestHandler) -> None:
        body = client.rfile.read(int(client.headers.get("Content-Length") or 0))
        url = urlsplit(client.path)
        path = unquote(url.path)
        with self._lock:
            self.requests.append((client.command, path, len(body)))
            fault = next((f for f in self.faults if f[0](client.command, path)), None)
            if fault:
                self.faults.remove(fault)
        if fault and fault[1].startswith("status:"):
            answer: tuple[int, dict[str, str], bytes] = (int(fault[1].removeprefix("status:")), {}, b"")
        elif fault and fault[1] == "reset":
            client.close_connection = True
            client.connection.close()
            return
        else:
            with self._lock:
                answer = self._answer(client, path, parse_qs(url.query), body)
        if fault and fault[1] == "lose the answer":
            client.close_connection = True
            client.connection.close()
            return
        status, headers, data = answer
        client.send_response_only(status)
        for name, value in headers.items():
            client.send_header(name, value)
        if "Content-Length" not in headers:
            client.send_header("Content-Length", str(len(data)))
        client.end_headers()
        if client.command != "HEAD":
            client.wfile.write(data)

    def _answer(  # noqa: PLR0911 - one answer a route
        self, client: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        parts = path.strip("/").split("/")
        if parts[0] == "lfs":
            return self._large(client.command, parts[1], body)
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
            repository = self.repositories.setdefault(name, Repository())
            if not repository.log:
                repository.commit("main", {".gitattributes": File(1, None, b"*")}, "initial commit")
            return _json({"url": f"{self.address}/datasets/{name}"})
        if path == "/api/whoami-v2":
            return _json(self.user)
        if path == "/api/validate-yaml":
            return _json({"errors": [], "warnings": []})
        if parts[:2] == ["api", "datasets"]:
            return self._api(client, "/".join(parts[2:4]), parts[4:], query, body)
        if parts[0] == "datasets" and len(parts) > 3 and parts[3].endswith("resolve"):
            return self._resolve(client, "/".join(parts[1:3]), parts[4:])
        if parts[0] == "datasets" and "objects" in parts:
            return self._batch(json.loads(body))
        return _json({"error": f"unknown {path}"}, 404)

    def _api(  # noqa: C901, PLR0911, PLR0912 - one answer a route
        self, client: Any, name: str, rest: list[str], query: dict[str, list[str]], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        repository = self.repositories.get(name)
        if repository is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        verb = rest[0] if rest else ""
        if verb == "refs":
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
                for name, commit in repository.refs.items()
                if not name.startswith("refs/pr/")
            ]
            tags = [{"name": t, "ref": f"refs/tags/{t}", "targetCommit": c} for t, c in repository.tags.items()]
            return _json({"branches": branches, "converts": [], "tags": tags, "pullRequests": []})
        if verb == "preupload":
            return _json({"files": [self._mode(file) for file in json.loads(body)["files"]]})
        if verb == "commit":
            return self._commit(repository, name, "/".join(rest[1:]), body)
        if verb == "branch":
            if client.command == "DELETE":
                del repository.refs["/".join(rest[1:])]
                return _json({})
            repository.refs["/".join(rest[1:])] = repository.find(json.loads(body)["startingPoint"]) or ""
            return _json({})
        if verb == "tag" and client.command == "DELETE":
            del repository.tags["/".join(rest[1:])]
            return _json({})
        if verb == "tag":
            tag = json.loads(body)["tag"]
            if tag in repository.tags:
                return _json({"error": "exists"}, 409)
            repository.tags[tag] = repository.find("/".join(rest[1:])) or ""
            return _json({})
        if verb == "discussions":
            return self._discussions(repository, client.command, rest[1:], body)
        if verb.startswith("xet-"):
            return self._xet_token()
        revision = "/".join(rest[1:]) or "main"
        if verb == "tree":
            found, folder = self._split(repository, rest[1:])
            files = repository.commits.get(found or "")
            if files is None:
                return 404, {"X-Error-Code": "RevisionNotFound"}, b""
            return _json(_tree(files, folder, recursive="true" in query.get("recursive", ["false"])[0].lower()))
        commit = repository.find(revision)
        if commit is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = repository.commits[commit]
        if verb == "paths-info":
            wanted = json.loads(body) if body.startswith(b"{") else {"paths": parse_qs(body.decode()).get("paths", [])}
            return _json([_entry(path, files[path]) for path in wanted["paths"] if path in files])
        document = {"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in files], "private": False}
        return _json({**document, "tags": [], "lastModified": "2026-01-01T00:00:00.000Z", "downloads": 0, "likes": 0})

    def _split(self, repository: Repository, rest: list[str]) -> tuple[str | None, str]:
        """Revision and path of `REVISION/PATH`; a revision may hold slashes."""
        for end in range(len(rest), 0, -1):
            commit = repository.find("/".join(rest[:end]))
            if commit is not None:
                return commit, "/".join(rest[end:])
        return None, ""

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        large = file["size"] > SMALL or file["path"].endswith((".parquet", ".png"))
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _batch(self, wanted: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        objects: list[dict[str, Any]] = []
        for file in wanted["objects"]:
            missing = not (self.folder / file["oid"]).exists()
            upload = {"upload": {"href": f"{self.address}/lfs/{file['oid']}"}}
            objects.append({**file, **({"actions": upload} if missing else {})})
        return _json({"transfer": "basic", "objects": objects})

    def _large(self, method: str, name: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if method == "PUT":
            if hashlib.sha256(body).hexdigest() != name:
                return _json({"error": "wrong checksum"}, 400)
            (self.folder / name).write_bytes(body)
            return 200, {}, b""
        return 200, {}, (self.folder / name).read_bytes()

    def _commit(self, repository: Repository, name: str, branch: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if self.before_commit:
            act, self.before_commit = self.before_commit, None
            act()
        header, *operations = (json.loads(line) for line in body.splitlines())
        if header["value"].get("parentCommit") not in {None, repository.refs[branch]}:
            return _json({"error": "A commit has happened since. Please refresh and try again."}, 412)
        files = dict(repository.commits[repository.refs[branch]])
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                data = base64.b64decode(value["content"])
                files[value["path"]] = File(len(data), None, data)
            elif operation["key"] == "lfsFile":
                if not self._has(value["oid"]):
                    return _json({"error": f"{value['path']} was never sent"}, 400)
                size = value.get("size") or _size_of(value["oid"], repository)  # a copy states none
                files[value["path"]] = File(size, value["oid"])
            else:
                del files[value["path"]]
        made = repository.commit(branch, files, header["value"]["summary"], header["value"]["description"])
        return _json({"commitUrl": f"{self.address}/datasets/{name}/commit/{made}", "commitOid": made, "success": True})

    def _has(self, sha256: str) -> bool:
        return (self.folder / sha256).exists() or sha256 in xet_files(self.folder / "xet")

    def _discussions(
        self, repository: Repository, method: str, rest: list[str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if not rest and method == "POST":
            number = len(repository.pull_requests) + 1
            repository.pull_requests[number] = {"title": json.loads(body)["title"], "status": "draft"}
            repository.refs[f"refs/pr/{number}"] = repository.refs["main"]
            return _json({"num": number})
        if not rest:
            listed = [self._discussion(n, pr) for n, pr in repository.pull_requests.items()]
            return _json({"discussions": listed, "count": len(listed), "start": 0})
        number = int(rest[0])
        if rest[1:] == ["merge"]:
            files = repository.commits[repository.refs[f"refs/pr/{number}"]]
            repository.commit("main", files, "merge")
            repository.pull_requests[number]["status"] = "merged"
            return _json({"newStatus": "merged"})
        details = self._discussion(number, repository.pull_requests[number])
        return _json({**details, "events": [], "filesWithConflicts": [], "changes": {"base": "main"}})

    def _discussion(self, number: int, pull_request: dict[str, Any]) -> dict[str, Any]:
        return {
            "num": number,
            "title": pull_request["title"],
            "status": pull_request["status"],
            "isPullRequest": True,
            "author": {"name": "publisher"},
            "createdAt": "2026-01-01T00:00:00.000Z",
            "repo": {"name": "x/y", "type": "dataset"},
        }

    def _xet_token(self) -> tuple[int, dict[str, str], bytes]:
        store = self.folder / "xet"
        store.mkdir(exist_ok=True)
        expires = int(time.time()) + 3600
        token = {"casUrl": f"local://{store}", "exp": expires, "accessToken": "t"}
        headers = {"X-Xet-Cas-Url": token["casUrl"], "X-Xet-Access-Token": "t", "X-Xet-Token-Expiration": str(expires)}
        status, plain, data = _json(token)
        return status, {**plain, **headers}, data

    def _bridged(self, xet: str, file: File) -> bytes:
        """What a client that does not speak Xet gets: the Hub reads the store for it."""
        place = self.folder / "bridged" / xet
        if not place.exists():
            wanted = [hf_xet.PyXetDownloadInfo(str(place), xet, file.size)]
            token = ("t", int(time.time()) + 3600)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                hf_xet.download_files(wanted, f"local://{self.folder / 'xet'}", token, None, None)
        return place.read_bytes()

    def _resolve(self, client: Any, name: str, rest: list[str]) -> tuple[int, dict[str, str], bytes]:
        repository = self.repositories[name]
        commit, path = self._split(repository, rest)
        file = repository.commits.get(commit or "", {}).get(path)
        if file is None or commit is None:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.oid}"', "Content-Length": str(file.size)}
        if file.sha256 is None:
            body = _ranged(client, file.data, headers)
            return 206 if "Content-Range" in headers else 200, headers, body
        headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
        xet = xet_files(self.folder / "xet").get(file.sha256)
        if xet is not None:
            headers |= {"X-Xet-Hash": xet, "X-Xet-Refresh-Route": f"/api/datasets/{name}/xet-read-token/{commit}"}
            headers["Link"] = f'<{self.address}/api/datasets/{name}/xet-read-token/{commit}>; rel="xet-auth"'
            data = self._bridged(xet, file) if client.command == "GET" else b""
        else:
            data = (self.folder / file.sha256).read_bytes()
        body = _ranged(client, data, headers)
        return 206 if "Content-Range" in headers else 200, headers, body


def _size_of(sha256: str, repository: Repository) -> int:
    """Size of a large file that some commit has."""
    return next(file.size for files in repository.commits.values() for file in files.values() if file.sha256 == sha256)


def _ranged(client: Any, data: bytes, headers: dict[str, str]) -> bytes:
    wanted = client.headers.get("Range")
    if client.command == "HEAD" or not wanted:
        return data
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    whole, data = len(data), data[int(first) : int(last) + 1 if last else None]
    headers["Content-Length"] = str(len(data))
    headers["Content-Range"] = f"bytes {first}-{int(first) + len(data) - 1}/{whole}"
    return data


def _entry(path: str, file: File) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": file.size, "oid": file.oid}
    if file.sha256 is not None:
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
    return entry


def _tree(files: dict[str, File], folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    below = f"{folder}/" if folder else ""
    inside = [path for path in sorted(files) if path.startswith(below)]
    folders = {below + path.removeprefix(below).split("/")[0] for path in inside if "/" in path.removeprefix(below)}
    if recursive:
        folders = {"/".join(p.split("/")[:n]) for p in inside for n in range(1, p.count("/") + 1)} - {folder}
    shown = [_entry(path, files[path]) for path in inside if recursive or "/" not in path.removeprefix(below)]
    return shown + [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]


def _json(document: Any, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(document).encode()


def xet_files(store: Path) -> dict[str, str]:
    """SHA-256 → Xet hash of every file in a Xet store, from its shards (Xet protocol, MDB shard format)."""
    found: dict[str, str] = {}
    for shard in store.rglob("*.mdb"):
        data, place = shard.read_bytes(), 48
        while data[place : place + 32] != b"\xff" * 32:
            name, flags = data[place : place + 32], int.from_bytes(data[place + 32 : place + 36], "little")
            entries = int.from_bytes(data[place + 36 : place + 40], "little")
            place += 48 + 48 * entries * (2 if flags & 1 << 31 else 1)
            if flags & 1 << 30:
                found[_hexadecimal(data[place : place + 32])] = _hexadecimal(name)
                place += 48
    return found


def _hexadecimal(data: bytes) -> str:
    """Xet writes a hash as four little-endian numbers."""
    return "".join(f"{int.from_bytes(data[n : n + 8], 'little'):016x}" for n in range(0, 32, 8))
