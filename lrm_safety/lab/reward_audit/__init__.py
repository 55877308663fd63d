"""The audit of a reward model before anything is trained with it."""
