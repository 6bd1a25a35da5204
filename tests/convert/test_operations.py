"""What names of kernels of every age tell."""

import pytest

from eidola.convert.nccl_calls import operation_of_call
from eidola.convert.operations import algorithm_of, kernel_operation, operation_of, protocol_of


@pytest.mark.parametrize(
    ("call", "operation"),
    [
        ("ncclBcast", "broadcast"),
        ("ncclAllReduceWithBias", "all_reduce"),
        ("ncclAlltoAll", "all_to_all"),
        ("ncclAllToAllv_impl", "all_to_allv"),
        ("ncclGroupEnd", "group end"),
        ("ncclCommInitRankConfig", None),
        ("ncclMemAlloc", None),
        ("hipLaunchKernel", None),
    ],
)
def test_a_call_of_nccl_or_rccl_is_its_operation(call, operation):
    assert operation_of_call(call) == operation


@pytest.mark.parametrize(
    ("name", "operation", "algorithm", "protocol"),
    [
        ("ncclAllReduceRingLLKernel_sum_f32(ncclColl)", "all_reduce", "ring", "ll"),
        ("ncclReduceScatterRingKernel_sum_f16(ncclColl)", "reduce_scatter", "ring", "simple"),
        ("ncclKernel_AllReduce_RING_LL_Sum_float(ncclDevComm*)", "all_reduce", "ring", "ll"),
        ("ncclDevKernel_AllReduce_Sum_f32_TREE_LL128(ncclDevComm*)", "all_reduce", "tree", "ll128"),
        ("ncclSymDevKernel_AllReduce_RSxLD_AGxST_sum_bf16(ncclSymDevArgs)", "all_reduce", None, None),
        ("ncclSymkDevKernel_AllGather_LLMC(ncclSymkDevWorkArgs4K)", "all_gather", None, None),
        ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", None, None, None),
        ("ncclDevKernel_Generic_1(ncclDevKernelArgsStorage<4096ul>)", None, None, None),
        ("two_shot_all_reduce_kernel<c10::BFloat16, 16, 8, true, false>(x)", "reduce_scatter", None, None),
        (
            "two_shot_all_reduce_kernel<float, (int)16, (int)8, (bool)1, (bool)0>(T1 **)",
            "reduce_scatter",
            None,
            None,
        ),
        (
            "two_shot_all_reduce_kernel<float, (int)16, (int)8, (bool)0, (bool)0>(T1 **)",
            "all_reduce",
            None,
            None,
        ),
        ("two_shot_all_reduce_kernel", None, None, None),
        ("_multimem_all_gather_kernel", "all_gather", None, None),
        ("_multimem_reduce_scatter_kernel", "reduce_scatter", None, None),
        ("_multimem_reduce_scatter_v_kernel", None, None, None),
    ],
)
def test_a_kernels_name_tells_what_it_does(name, operation, algorithm, protocol):
    told = kernel_operation(name)
    assert (told and operation_of(told), algorithm_of(name), protocol_of(name)) == (
        operation,
        algorithm,
        protocol,
    )
