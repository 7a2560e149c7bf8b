"""Encoders and the regressor built on them: inputs to embeddings, representations and predictions."""
