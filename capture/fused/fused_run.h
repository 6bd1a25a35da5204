/* How a fused kernel runs: as a kernel on GPUs, or on CPU threads. */
#if EIDOLA_GPU
#include "fused_gpu.h"
#else
#include "fused_cpu.h"
#endif
