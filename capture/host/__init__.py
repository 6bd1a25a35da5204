"""C sources of this package, built at first use with the system's compiler."""
