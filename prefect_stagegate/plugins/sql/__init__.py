"""SQL databases: a table or query of PostgreSQL as Parquet files, of one snapshot, in bounded memory."""
