"""Comparing search methods on a table over many seeds."""
