"""Tuning: plans, searches, study folders, and the sweep that runs their trials with Ray."""
