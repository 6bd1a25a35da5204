"""Light records: rings that outlive the process, and the C++ recorder that fills one with collectives."""
