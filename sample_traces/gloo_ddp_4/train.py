"""Two linear layers trained with DistributedDataParallel on Gloo, as PyTorch's own examples are written."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    """Train for five steps, then sum the loss over the ranks."""
    dist.init_process_group("gloo")
    torch.manual_seed(dist.get_rank())
    layers = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256))
    model = DistributedDataParallel(layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(5):
        batch = torch.randn(32, 256)
        optimizer.zero_grad()
        loss = (model(batch) - batch).square().mean()
        loss.backward()
        optimizer.step()
    total = loss.detach().clone()
    dist.all_reduce(total)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
