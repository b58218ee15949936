"""Trained models of public packages."""
