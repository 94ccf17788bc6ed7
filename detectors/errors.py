"""Errors that are meant for the person who gave the input, as opposed to defects."""

import contextlib
from collections.abc import Collection, Iterator


class InputError(ValueError):
    """An option, a file, a data set or a name that cannot be used; the message says what came and what was expected.

    The command line prints its message as one line. Any other error, but for those of the file system, is a defect
    there and keeps its traceback.

    >>> from detectors import InputError, load
    >>> try:
    ...     load("photo.safetensors")
    ... except (InputError, OSError) as error:
    ...     print(error)
    no checkpoint at photo.safetensors
    """


class SettingsError(InputError, TypeError):
    """Settings that no part of a detector takes."""


@contextlib.contextmanager
def checked_settings(chosen: Collection[object] = ()) -> Iterator[None]:
    """Context that re-raises errors about a user's settings as `InputError`.

    Necks, losses and the like raise `ValueError` for a bad argument, and torch raises `RuntimeError` for a checkpoint
    that does not fit. A `TypeError`, from a value of a wrong type or an unknown name, counts as the user's error if
    there are `chosen` settings, and as a defect otherwise.

    >>> with checked_settings(["neck.num_levels=many"]):
    ...     range("many")
    Traceback (most recent call last):
    detectors.errors.InputError: a setting does not fit: 'str' object cannot be interpreted as an integer
    """
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error
    except RuntimeError as error:
        if not str(error).startswith("Error(s) in loading state_dict"):
            raise
        raise InputError(str(error)) from error
    except TypeError as error:
        if not chosen:
            raise
        raise InputError(f"a setting does not fit: {error}") from error
