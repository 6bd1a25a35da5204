"""GPUs, their driver, peer access and links, as NVML or amdsmi tells them."""

from collections import Counter
from collections.abc import Iterator, Sequence

from ..gpus import Backend, Gpu, Link
from . import gpu_clock
from .examination import Finding

_NO_GPU = "a GPU and its driver; without one `capture kernel --backend host` captures order, sizes and counts"


def vendor(backend: Backend) -> str | None:
    """Return nvidia, amd, or None without a GPU."""
    return next((gpu.vendor for gpu in backend.gpus()), None)


def findings(backend: Backend) -> Iterator[Finding]:
    """Return the rows about GPUs; without one, all say so."""
    gpus = backend.gpus()
    if not gpus:
        yield Finding("GPU", "absent", backend.missing or "none", _NO_GPU)
        return
    links = backend.links()
    yield Finding("GPU", "ok", _listed([gpu.model for gpu in gpus]))
    yield Finding("GPU driver", "ok", _listed([gpu.driver for gpu in gpus], count=False))
    yield _access(gpus, links)
    yield _links(gpus, links)
    yield gpu_clock.finding()


def _access(gpus: Sequence[Gpu], links: Sequence[Link]) -> Finding:
    pairs = len(gpus) * (len(gpus) - 1)
    if not pairs:
        return Finding(
            "Peer access", "absent", "one GPU", "use `capture kernel --backend virtual`, or several GPUs"
        )
    reached = len({(link.gpu, link.peer) for link in links if link.access})
    denied = [f"{link.gpu} to {link.peer}" for link in links if link.access is False]
    if not denied:
        return Finding("Peer access", "ok", f"{reached} of {pairs} ordered pairs over a direct link or PCIe")
    remedy = "check the IOMMU (ACS off), that no MIG is on, and that the container sees all GPUs"
    return Finding("Peer access", "gap", f"denied from GPU {', '.join(denied[:8])}", remedy)


def _links(gpus: Sequence[Gpu], links: Sequence[Link]) -> Finding:
    fast = [link for link in links if link.kind in ("nvlink", "xgmi")]
    if not fast:
        remedy = "" if len(gpus) == 1 else "peers are reached over PCIe; expect its rates"
        return Finding("Links", "absent", "no NVLink or xGMI", remedy)
    told = sorted(
        {
            f"GPU {link.gpu}: {link.count} {link.kind} to "
            + ("a switch" if link.peer is None else f"GPU {link.peer}")
            + (f", {link.rate_bytes_per_s / 1e9:g} GB/s each" if link.rate_bytes_per_s else "")
            for link in fast
        }
    )
    more = f"; and {len(told) - 8} more" if len(told) > 8 else ""
    return Finding("Links", "ok", "; ".join(told[:8]) + more)


def _listed(names: Sequence[str], *, count: bool = True) -> str:
    return ", ".join(f"{n} x {name}" if count else name for name, n in Counter(names).items())
