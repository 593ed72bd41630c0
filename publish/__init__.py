"""Publish a validated release: all of it or nothing, and never other bytes under a version that is out."""

from clay_publish.publish.manage import record_hub, versions, yank
from clay_publish.publish.publish import publish
from clay_publish.publish.receipt import Receipt

__all__ = ["Receipt", "publish", "record_hub", "versions", "yank"]
