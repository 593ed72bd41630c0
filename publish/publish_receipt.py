"""What came of publishing one version to one place."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from clay_publish.formats import duration, size

State = Literal["published", "unchanged", "dry run"]


class PublishReceipt(BaseModel):
    """What was sent where, and how it was checked."""

    model_config = ConfigDict(frozen=True)

    target: str
    """The place, as the maintainer named it."""
    where: str
    """Where readers find this version."""
    name: str
    version: str
    state: State
    files: int
    """Files of the version."""
    size: int
    """Bytes of the version."""
    sent: list[str]
    """Paths that were sent, or would be."""
    sent_bytes: int
    copied: list[str] = []
    """Paths whose bytes the host copied from an earlier version."""
    verified: Literal["no", "checksums", "full"] = "no"
    """`checksums`: sizes and the host's checksums; `full`: every byte was read back."""
    checked: list[str] = []
    """What a dry run made sure of."""
    unknown: list[str] = []
    """What lies there and is not in the manifest."""
    seconds: float = 0.0
    """Measured; of a dry run, estimated."""
    commit: str | None = None
    """On the Hub."""
    web: str | None = None
    """Page that shows this version to people; None where the host has none."""

    @property
    def line(self) -> str:
        """For a person."""
        whole = f"{self.where}: {self.files} files, {size(self.size)}"
        if self.state == "unchanged":
            line = f"{whole}, there already, verified"
        elif self.state == "dry run":
            line = f"{whole}, of which {len(self.sent)} files, {size(self.sent_bytes)} would be sent"
            line += f" (about {duration(self.seconds)})"
            line += f"; checked: {', '.join(self.checked)}" if self.checked else ""
        else:
            line = f"{whole}, {len(self.sent)} sent ({size(self.sent_bytes)}) in {self.seconds:.0f} s, verified"
        if self.copied:
            line += f"; {len(self.copied)} copied from an earlier version"
        if self.web and self.state != "dry run":
            line += f"; see {self.web}"
        if self.unknown:
            line += f"; NOT in the manifest: {', '.join(self.unknown)}"
        return line
