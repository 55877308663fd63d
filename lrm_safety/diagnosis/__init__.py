"""Failure signatures of safety alignment as rules over the figures of training and evaluation."""
