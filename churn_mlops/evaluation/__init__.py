"""How good the predictions are, and what they rest on."""
