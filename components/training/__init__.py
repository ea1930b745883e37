"""The one training loop: processes, schedules, mixed precision, checkpoints, resume, history."""
