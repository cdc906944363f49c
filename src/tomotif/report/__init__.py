"""Run folders to one HTML page. Imports no task."""
