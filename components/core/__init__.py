"""What every stage stands on: declarations, configs, manifests, metrics, stores, logs."""
