"""Fused computation-collective kernels to capture: one source each for CUDA, HIP and C11, three backends."""
