"""What runs a network: training, prediction, shards, resuming."""
