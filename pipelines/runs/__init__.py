"""What a run is, wherever it is executed: its record, its folder or bucket, cells, logs."""
