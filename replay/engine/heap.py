"""Binary heaps of events (time, key), compiled. Keys are unique at a time, so the order is total."""

from .jit import jit


@jit
def before(time_a, key_a, time_b, key_b):
    """Whether event a comes before event b; without branches, which nothing could predict."""
    return (time_a < time_b) | ((time_a == time_b) & (key_a < key_b))


@jit
def push(heap, size, time, key):
    """Add an event to a heap of `size`."""
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        if not before(time, key, heap[parent].time, heap[parent].key):
            break
        heap[at].time = heap[parent].time
        heap[at].key = heap[parent].key
        at = parent
    heap[at].time = time
    heap[at].key = key


@jit
def replace(heap, size, time, key):
    """Put an event in the place of the first one, in a heap of `size`."""
    at = 0
    child = 2
    while child < size:
        child -= before(heap[child - 1].time, heap[child - 1].key, heap[child].time, heap[child].key)
        if not before(heap[child].time, heap[child].key, time, key):
            break
        heap[at].time = heap[child].time
        heap[at].key = heap[child].key
        at = child
        child = 2 * at + 2
    if child == size and before(heap[child - 1].time, heap[child - 1].key, time, key):
        heap[at].time = heap[child - 1].time
        heap[at].key = heap[child - 1].key
        at = child - 1
    heap[at].time = time
    heap[at].key = key


@jit
def remove(heap, size):
    """Take the first event off a heap of `size`; return its new size."""
    size -= 1
    if size > 0:
        replace(heap, size, heap[size].time, heap[size].key)
    return size
