"""Publish a validated release: all of it or nothing, and never other bytes under a version that is out."""

from clay_publish.publish.audit import AuditReport, audit
from clay_publish.publish.package import PublishReceipt
from clay_publish.publish.published_versions import publish_release, record_hub, versions, yank

__all__ = ["AuditReport", "PublishReceipt", "audit", "publish_release", "record_hub", "versions", "yank"]
