"""The record in MLflow; this package knows no engine."""
