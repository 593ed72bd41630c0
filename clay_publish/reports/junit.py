"""JUnit XML: a test case for each rule. Source: the schema that Jenkins, GitLab and GitHub's actions read."""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from clay_publish.findings import Finding, Severity, ValidationReport
from clay_publish.validate.rules import Rule


def junit(validation: ValidationReport, rules: Sequence[Rule], threshold: Severity = Severity.ERROR) -> str:
    """One test case a rule. Findings below the threshold are told and fail nothing."""
    suite = ET.Element("testsuite", name="clay-publish validate", hostname="localhost")
    failures = skipped = 0
    for rule in rules:
        state = validation.checked.get(rule.code)
        if state is None:
            continue
        case = ET.SubElement(suite, "testcase", classname=rule.group, name=f"{rule.code} {rule.title}", time="0")
        found = [finding for finding in validation.findings if finding.code == rule.code]
        counting = [finding for finding in found if finding.severity.rank >= threshold.rank]
        if counting:
            failures += 1
            failed = ET.SubElement(case, "failure", type=str(counting[0].severity), message=_line(counting[0]))
            failed.text = "\n".join(map(_line, found))
        elif found:
            ET.SubElement(case, "system-out").text = "\n".join(map(_line, found))
        elif state.startswith("not checked"):
            skipped += 1
            ET.SubElement(case, "skipped", message=state)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failures))
    suite.set("errors", "0")
    suite.set("skipped", str(skipped))
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _line(finding: Finding) -> str:
    expected = f"; expected {finding.expected}" if finding.expected else ""
    return f"{finding.where}: {finding.found}{expected}. {finding.fix}"
