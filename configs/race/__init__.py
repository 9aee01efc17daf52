"""Races: contestants under one budget (t5x_like.racing)."""
