"""Runs beside real work and writes raw records. GPU libraries are imported only where they are used."""
