"""Fused kernels really run on the CPU: C11 atomics and threads, built at first use."""
