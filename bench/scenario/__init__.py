"""Scenario files: model, loading, overrides, plan, contrasts."""
