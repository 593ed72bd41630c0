"""What was sent already, so that a killed upload goes on where it stopped.

The host cannot be asked: source.coop lists neither uploads nor parts. One JSON object a line, appended and synced
before anything relies on it; a line that was cut off in the middle is no line.
"""

import json
import os
from pathlib import Path
from threading import Lock
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from clay_publish.errors import PublishError
from clay_publish.storage.s3 import Part


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True)

    event: Literal["begun", "part", "stored", "ended"]
    key: str
    sha256: str
    """Of the file: an upload of other bytes is never gone on with."""
    upload: str | None = None
    part_size: int | None = None
    part: Part | None = None
    etag: str | None = None


class Upload(BaseModel):
    """An upload that was begun."""

    key: str
    sha256: str
    id: str
    part_size: int
    """Bytes; the parts that are missing have to be cut as those that have arrived."""
    parts: dict[int, Part] = {}


class Journal:
    """The journal of one version and one target."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._uploads: dict[str, Upload] = {}
        self._stored: dict[str, tuple[str, str]] = {}
        self._read()

    def upload(self, key: str) -> Upload | None:
        """The unfinished upload of a key."""
        return self._uploads.get(key)

    def uploads(self) -> list[Upload]:
        """All unfinished uploads."""
        return list(self._uploads.values())

    def etag(self, key: str, sha256: str) -> str | None:
        """The tag under which the host stored these bytes; None where this program did not see it."""
        known = self._stored.get(key)
        return known[1] if known and known[0] == sha256 else None

    def begun(self, key: str, sha256: str, upload: str, part_size: int) -> Upload:
        """An upload was begun."""
        self._write(_Line(event="begun", key=key, sha256=sha256, upload=upload, part_size=part_size))
        return self._uploads[key]

    def part(self, upload: Upload, part: Part) -> None:
        """A part has arrived."""
        self._write(_Line(event="part", key=upload.key, sha256=upload.sha256, upload=upload.id, part=part))

    def stored(self, key: str, sha256: str, etag: str) -> None:
        """A file is there whole."""
        self._write(_Line(event="stored", key=key, sha256=sha256, etag=etag))

    def ended(self, upload: Upload) -> None:
        """An upload was given up, or completed to something else than was sent."""
        self._write(_Line(event="ended", key=upload.key, sha256=upload.sha256, upload=upload.id))

    def forget(self) -> None:
        """Nothing is left to go on with."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> None:
        if not self._path.is_file():
            return
        *lines, torn = self._path.read_bytes().split(b"\n")
        if torn:
            os.truncate(self._path, self._path.stat().st_size - len(torn))
        for text in lines:
            try:
                line = _Line.model_validate(json.loads(text))
            except (ValueError, ValidationError) as error:
                raise PublishError(str(self._path), "holds a line that is no record", fix="Remove the file.") from error
            self._apply(line)

    def _apply(self, line: _Line) -> None:
        if line.event == "begun" and line.upload and line.part_size:
            begun = Upload(key=line.key, sha256=line.sha256, id=line.upload, part_size=line.part_size)
            self._uploads[line.key] = begun
        elif line.event == "part" and line.part:
            upload = self._uploads.get(line.key)
            if upload is not None and upload.id == line.upload:
                upload.parts[line.part.number] = line.part
        elif line.event == "stored" and line.etag:
            self._stored[line.key] = (line.sha256, line.etag)
            self._uploads.pop(line.key, None)
        elif line.event == "ended":
            self._uploads.pop(line.key, None)

    def _write(self, line: _Line) -> None:
        text = (line.model_dump_json(exclude_none=True) + "\n").encode()
        with self._lock:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("ab") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise PublishError(
                    str(self._path),
                    f"cannot be written ({error.strerror})",
                    "room for the journal of the upload",
                    "Make room and run the command again: it goes on where it stopped.",
                ) from error
            self._apply(line)
