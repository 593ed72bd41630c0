"""release → findings: judges what lies on disk, whoever wrote it.

Rules are small functions, grouped in files, over a view of the release that reads each thing when it is first asked
for. Rules on rows share one pass over the embeddings. Nothing that could not be checked counts as passed.
"""

from clay_publish.validate.judge import SAMPLE, validate
from clay_publish.validate.rules import GROUPS, Rule, all_rules

__all__ = ["GROUPS", "SAMPLE", "Rule", "all_rules", "validate"]
