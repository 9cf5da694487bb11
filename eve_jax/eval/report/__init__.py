"""Reports of an evaluation: report.json, report.md and report.html, and a table for the terminal."""

from eve_jax.eval.report.table import table_lines
from eve_jax.eval.report.write import write_reports

__all__ = ["table_lines", "write_reports"]
