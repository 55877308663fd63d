"""How the miniature's models and prompts were made: run again by `lrm-safety build-miniature`."""
