"""The schema -> simulated traffic at N GPUs -> results."""
