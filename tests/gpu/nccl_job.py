"""A job of collectives and sends over NCCL or RCCL, for the profiler plugin to watch; started by torchrun."""

import os

import torch
import torch.distributed as dist

rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
device = torch.device("cuda", rank % torch.cuda.device_count())
torch.cuda.set_device(device)
dist.init_process_group("nccl", device_id=device)
for _ in range(3):
    values = torch.ones(1 << 20, device=device)
    dist.all_reduce(values)
    assert values[0].item() == world
gathered = torch.empty(world << 10, device=device, dtype=torch.bfloat16)
dist.all_gather_into_tensor(gathered, torch.ones(1 << 10, device=device, dtype=torch.bfloat16))
message = torch.full((4096,), float(rank), device=device)
if rank == 0 and world > 1:
    dist.send(message, 1)
elif rank == 1:
    dist.recv(message, 0)
    assert message[0].item() == 0
torch.cuda.synchronize()
dist.destroy_process_group()
