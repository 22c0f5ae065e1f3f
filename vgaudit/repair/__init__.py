"""Repairs: candidates from the findings, trained beside controls on one budget."""
