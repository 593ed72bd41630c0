"""Run planned units: engines, resuming, reuse and budgets."""
