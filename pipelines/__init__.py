"""What chains the stages: plans, recipes, backends, and the command line."""
