"""Contracts that plugin authors test their components with."""
