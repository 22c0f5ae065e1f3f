"""The detection benchmark: models with labels that no rule of ours made."""
