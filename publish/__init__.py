"""Publish validated releases atomically; a published version is immutable."""

from clay_publish.publish.audit import AuditReport, audit
from clay_publish.publish.package import PublishReceipt
from clay_publish.publish.published_versions import publish_release, record_hub, versions, yank

__all__ = ["AuditReport", "PublishReceipt", "audit", "publish_release", "record_hub", "versions", "yank"]
