"""Parts of tools.bench_data."""
