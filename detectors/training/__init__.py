"""Training and evaluation of detectors: the loop, schedules, checkpoints and COCO's figures."""

from detectors.training.config import TrainConfig
from detectors.training.evaluation import evaluate
from detectors.training.run import train

__all__ = ["TrainConfig", "evaluate", "train"]
