"""The record of a study in MLflow; this package does not depend on any engine."""
