"""Scenario files: model, loader, overrides, plan, contrasts."""
