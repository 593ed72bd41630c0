"""What can be known of a place before anything is sent: access, room, and whether it heeds conditions."""

import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from clay_publish.errors import PublishError
from clay_publish.formats import size
from clay_publish.publish.bucket import Bucket, LocalBucket

if TYPE_CHECKING:
    from clay_publish.publish.hub.repository import HubRepository

_OTHER_TAG = '"00000000000000000000000000000000"'


def check_bucket(bucket: Bucket, needed: int) -> list[str]:
    """Check that a version can be published to a bucket; nothing is left there. Returns what was checked.

    Args:
        bucket: where.
        needed: bytes that would be sent.

    Raises:
        PublishError: no credentials, no permission to write, no room, or conditions of a put are ignored.
    """
    return _check_directory(Path(bucket.where), needed) if isinstance(bucket, LocalBucket) else _check_server(bucket)


def _check_directory(folder: Path, needed: int) -> list[str]:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise PublishError(str(there), "cannot be written to", "a directory that this user may write to")
    free = shutil.disk_usage(there).free
    if free < needed:
        raise PublishError(
            str(there), f"has {size(free)} of free space", f"{size(needed)}", "Make room, or use another."
        )
    return [f"free space {size(free)}"]


def _check_server(bucket: Bucket) -> list[str]:
    """A put on a condition that nothing meets: refused by every server that heeds conditions, so nothing appears."""
    probe = f".preflight-{uuid.uuid4().hex}"
    if bucket.write(probe, b"preflight", _OTHER_TAG):
        raise PublishError(
            f"{bucket.where}/{probe}",
            "was stored although its condition was not met (If-Match): this server ignores conditional writes",
            "a server that heeds them: AWS S3, Cloudflare R2, MinIO since 2024, Ceph since Squid",
            "Remove that object.",
        )
    return ["credentials", "conditional writes"]


def check_token(repository: "HubRepository") -> list[str]:
    """Check that the token may write to a repository of the Hub. Returns what was checked.

    Raises:
        PublishError: there is no token, or it may not write there.
    """
    user = repository.whoami()
    owner = repository.name.partition("/")[0]
    token = (user.get("auth") or {}).get("accessToken") or {}
    role, who = token.get("role"), user.get("name")
    fix = "Create a token with write access to it, then `hf auth login` or set HF_TOKEN."
    if role == "read":
        raise PublishError(repository.where, f"refuses the token of {who}, which may only read", "a write token", fix)
    if role == "fineGrained":
        scopes = (token.get("fineGrained") or {}).get("scoped") or []
        writes = {
            str((scope.get("entity") or {}).get("name"))
            for scope in scopes
            if "repo.write" in (scope.get("permissions") or [])
        }
        if not writes & {owner, repository.name, f"datasets/{repository.name}"}:
            named = ", ".join(sorted(writes)) or "nothing"
            raise PublishError(
                repository.where, f"is not in the scope of the token of {who} (it may write to {named})", owner, fix
            )
        return [f"token of {who}, whose scope includes it"]
    members = {str(who), *(str(each.get("name")) for each in user.get("orgs") or [])}
    if owner not in members:
        found = f"belongs to {owner}, and the token to {who}"
        raise PublishError(repository.where, found, f"an owner among {', '.join(sorted(members))}", fix)
    return [f"token of {who}, which may write"]
