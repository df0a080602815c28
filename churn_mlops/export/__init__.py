"""A model for programs without Python."""
