"""The learning algorithms, each under a short name."""
