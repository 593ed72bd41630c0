"""Release → findings: validates the files of a release, by any producer.

Rules are small functions and tables, grouped in files, over a context that reads each part of the release when it is
first needed. Rules on rows share one pass over the embeddings. Nothing that could not be checked counts as passed.
Everything is read in a child process that has limits and no access to anything but the release.
"""

from clay_publish.validate.outcomes import is_parquet
from clay_publish.validate.registry import GROUPS, Rule, all_rules
from clay_publish.validate.runner import SAMPLE, validate

__all__ = ["GROUPS", "SAMPLE", "Rule", "all_rules", "is_parquet", "validate"]
