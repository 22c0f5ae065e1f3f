"""What a model is called with: given, agreed, or inferred."""
