"""Emissions of the integer operators."""
