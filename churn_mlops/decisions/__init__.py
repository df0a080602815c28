"""Whom to contact, and what it is worth."""
