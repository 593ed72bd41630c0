"""The commands: each parses, calls one stage, prints.

A stage is imported when its command runs: `--help` answers at once, and what an installation lacks is only missed by
the command that needs it.
"""
