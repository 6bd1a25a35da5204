"""Binary heaps of events (time, key), compiled. Keys are unique at a time, so the order is total."""

from .jit import jit


@jit
def before(time_a, key_a, time_b, key_b):
    """Whether event a comes before event b."""
    return time_a < time_b or (time_a == time_b and key_a < key_b)


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
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        right = child + 1
        if right < size and before(heap[right].time, heap[right].key, heap[child].time, heap[child].key):
            child = right
        if not before(heap[child].time, heap[child].key, time, key):
            break
        heap[at].time = heap[child].time
        heap[at].key = heap[child].key
        at = child
    heap[at].time = time
    heap[at].key = key
