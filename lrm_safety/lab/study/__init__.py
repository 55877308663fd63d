"""Base, SFT and RL of one model: trained, evaluated, analysed, reported by the ordinary commands."""
