"""The commands of `python -m detectors`: a module each, with a dataclass of its name whose fields are the arguments.

A command's `run()` does the work and returns the exit code. Modules import heavy libraries only in there, so that help
comes at once.
"""
