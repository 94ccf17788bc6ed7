"""`python -m detectors train`: a detector from a folder of annotated pictures."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from detectors.training.config import TrainConfig

SIGNALED = 143  # 128 + SIGTERM, the exit code that shells use


@dataclass
class Train(TrainConfig):
    """Train a detector on a folder of annotated pictures.

    Needs --data, --model (or --weights) and --output, or --resume and --output.
    """

    explicit: ClassVar[frozenset[str] | None] = None
    """Names of the options on the command line, whatever their values; None outside of it."""

    config: Path | None = None
    """Take options from a run's config.json; options on the command line take precedence."""
    resume: bool = False
    """Continue the run in --output from its last checkpoint; options not given are the run's."""
    previous: bool = False
    """With --resume: from the checkpoint before the last."""
    overwrite: bool = False
    """Delete the run in --output first."""

    def run(self) -> int:
        from detectors.training.checkpoint import TrainingStopped
        from detectors.training.run import train

        try:
            options, explicit = self.options()
            done = train(
                options, resume=self.resume, overwrite=self.overwrite, previous=self.previous, explicit=explicit
            )
        except TrainingStopped as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return 0 if done else SIGNALED

    def options(self) -> tuple[TrainConfig, set[str]]:
        """The options from the file and the command line, which takes precedence, and the names of those in either."""
        from detectors.training.config import set_options
        from detectors.training.config_file import combined

        named = set_options(self, self.explicit)
        options = combined(self.config, named) if self.config else named
        return TrainConfig(**options), set(options)
