"""Churn models: fit, evaluate, save, load, predict, train from the command line."""
