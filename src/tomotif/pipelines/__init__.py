"""Chains of tasks."""
