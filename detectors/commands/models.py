"""`python -m detectors models`: the named detectors."""

from dataclasses import dataclass


@dataclass
class Models:
    """List the named detectors with their backbone, neck and input size."""

    def run(self) -> int:
        from rich.console import Console
        from rich.table import Table

        from detectors.models.zoo import list_detectors, preset

        table = Table("name", "backbone", "neck", "input", box=None)
        for name in list_detectors():
            settings = preset(name)
            table.add_row(name, settings.get("backbone", "any"), settings["neck"], str(settings["image_size"]))
        Console().print(table)
        return 0
