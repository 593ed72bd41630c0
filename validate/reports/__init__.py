"""A validation report, for browsers and for CI: HTML, JUnit, SARIF.

Made from a `ValidationReport` and the list of rules alone; nothing of the release itself is read.
"""

from clay_publish.validate.reports.ci import junit, sarif
from clay_publish.validate.reports.html import html

__all__ = ["html", "junit", "sarif"]
