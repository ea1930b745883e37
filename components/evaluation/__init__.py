"""Official metrics over stored predictions, each in its data set's own result format."""
