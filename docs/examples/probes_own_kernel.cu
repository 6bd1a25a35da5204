/* A kernel of your own with probes: blocks of GPU 0 write their results to GPU 1 and raise a flag there; with one GPU
 * it is its own peer.
 *
 *   nvcc -I "$(python -c 'import eidola.capture as c; print(c.include_folder())')" probes_own_kernel.cu -o own
 *   ./own && python probes_own_kernel.py
 *
 * On AMD, hipify it or write the host part with HIP; the kernel and the header stay as they are.
 */
#include "eidola_probe.h"

#include <cstdio>
#include <vector>

enum { SCALE, REGION_RESULTS = 0 }; /* phases and regions: the Python part names them, in this order */
const int BLOCKS = 16, THREADS = 256, CAPACITY = 64, LAUNCHES = 10;

__global__ void scale_to_peer(const float *input, float *peer_results, unsigned long long *peer_flags,
                              unsigned long long epoch, eidola_record *records, eidola_count *counts)
{
    eidola_probe probe = eidola_begin(records + blockIdx.x * CAPACITY, counts + blockIdx.x, CAPACITY);
    int first = blockIdx.x * THREADS;
    eidola_phase_begin(&probe, SCALE, epoch);
    peer_results[first + threadIdx.x] = 2 * input[first + threadIdx.x];
    __syncthreads(); /* the record tells when the block's last store was issued */
    eidola_data_write(&probe, REGION_RESULTS, 1, THREADS * sizeof(float), first * sizeof(float));
    eidola_flag_write(&probe, 1, blockIdx.x, epoch);
    if (threadIdx.x == 0) {
        __threadfence_system(); /* after the barrier: it publishes all of the block's stores */
        *(volatile unsigned long long *)(peer_flags + blockIdx.x) = epoch;
    }
    eidola_phase_end(&probe, SCALE, epoch);
    eidola_end(&probe); /* in every launch, also where the kernel returns early */
}

static void check(cudaError_t error)
{
    if (error != cudaSuccess) {
        std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
        std::exit(1);
    }
}

template <typename T> static T *zeros(size_t count)
{
    T *there;
    check(cudaMalloc(&there, count * sizeof(T)));
    check(cudaMemset(there, 0, count * sizeof(T)));
    return there;
}

template <typename T> static void save(const char *name, const T *there, size_t count)
{
    std::vector<T> here(count);
    check(cudaMemcpy(here.data(), there, count * sizeof(T), cudaMemcpyDefault));
    std::FILE *file = std::fopen(name, "wb");
    if (!file || std::fwrite(here.data(), sizeof(T), count, file) != count || std::fclose(file))
        std::perror(name), std::exit(1);
}

int main()
{
    int gpus;
    check(cudaGetDeviceCount(&gpus));
    check(cudaSetDevice(gpus > 1));
    float *results = zeros<float>(BLOCKS * THREADS);
    unsigned long long *flags = zeros<unsigned long long>(BLOCKS);
    check(cudaSetDevice(0));
    if (gpus > 1)
        check(cudaDeviceEnablePeerAccess(1, 0));
    float *input = zeros<float>(BLOCKS * THREADS);
    eidola_record *records = zeros<eidola_record>(BLOCKS * CAPACITY);
    eidola_count *counts = zeros<eidola_count>(BLOCKS);
    for (int epoch = 1; epoch <= LAUNCHES; epoch++)
        scale_to_peer<<<BLOCKS, THREADS>>>(input, results, flags, epoch, records, counts);
    check(cudaDeviceSynchronize());
    save("records.bin", records, BLOCKS * CAPACITY);
    save("counts.bin", counts, BLOCKS);
    return 0;
}
