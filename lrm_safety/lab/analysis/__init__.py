"""What a finished run did to a model: entropy at reflection tokens, memorization of training data."""
