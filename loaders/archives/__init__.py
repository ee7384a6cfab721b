"""Data sets as people have them: tars, parquet, tables of paths; indexed and read without unpacking. No torch."""
