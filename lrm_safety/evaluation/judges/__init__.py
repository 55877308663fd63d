"""Judges of safety behind one interface."""
