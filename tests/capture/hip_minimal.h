/* As much of HIP's device side as our sources use, so that clang compiles them without ROCm's headers. */
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __forceinline__ inline __attribute__((always_inline))

struct hip_index { unsigned int x, y, z; };
#define threadIdx                                                                                              \
    (hip_index{__builtin_amdgcn_workitem_id_x(), __builtin_amdgcn_workitem_id_y(), __builtin_amdgcn_workitem_id_z()})
#define blockIdx                                                                                               \
    (hip_index{__builtin_amdgcn_workgroup_id_x(), __builtin_amdgcn_workgroup_id_y(), __builtin_amdgcn_workgroup_id_z()})
#define blockDim                                                                                               \
    (hip_index{__builtin_amdgcn_workgroup_size_x(), __builtin_amdgcn_workgroup_size_y(),                       \
               __builtin_amdgcn_workgroup_size_z()})

static __device__ __forceinline__ void __syncthreads()
{
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

static __device__ __forceinline__ float __shfl_down(float value, unsigned int step)
{
    int lane = __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0));
    return __builtin_bit_cast(float, __builtin_amdgcn_ds_bpermute((lane + step) << 2, __builtin_bit_cast(int, value)));
}
