"""The two engines: `reference` in SimPy reads as the definition, `compiled` with Numba is for scale."""
