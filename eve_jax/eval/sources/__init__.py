"""Reads the rows and images of benchmarks from local folders."""
