"""What a judge said, for browsers and for CI: HTML, JUnit, SARIF.

Made from a `ValidationReport` and the list of rules alone; nothing of the release itself is read.
"""

from clay_publish.reports.html import html
from clay_publish.reports.junit import junit
from clay_publish.reports.sarif import sarif

__all__ = ["html", "junit", "sarif"]
