from typing import get_args

from components.core.stage import load_stage
from components.detection.config import Task
from components.detection.measure import CONFIGS


def test_each_task_is_measured_by_the_config_of_its_own_stage() -> None:
    stages = {task: load_stage(f"detection.{task}").config for task in get_args(Task)}
    assert stages == CONFIGS
    assert all(config.task == task for task, config in CONFIGS.items())
