"""Settings that are shipped, or written down by a user, as YAML."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from .settings import Settings

_SUFFIX = ".yaml"


def preset_names() -> list[str]:
    """The shipped presets; the comment at the head of each says what it reaches.

    Example:
        >>> preset_names()
        ['beamrider', 'discrete-pendulum', 'halfcheetah', 'pendulum']
    """
    return sorted(part.name.removesuffix(_SUFFIX) for part in _shipped().iterdir() if part.name.endswith(_SUFFIX))


def read_preset(name: str) -> dict[str, Any]:
    """The settings of a preset, those that it names.

    Args:
        name: of a shipped preset, or the path of a file ending in ``.yaml``.

    Raises:
        InputError: there is none, or it holds something else than settings.

    Example:
        >>> read_preset("pendulum")["labels"]
        200
    """
    place: Any = Path(name) if name.endswith(_SUFFIX) else _shipped().joinpath(name + _SUFFIX)
    try:
        content = yaml.safe_load(place.read_text())
    except OSError as error:
        raise InputError(
            f"there is no preset {name!r}; wanted one of {', '.join(preset_names())}, or a file"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{name} is no YAML ({error}): mend it") from error
    if not isinstance(content, dict):
        raise InputError(f"{name} holds {type(content).__name__}; wanted settings, one a line, such as labels: 200")
    try:
        Settings(**content)
    except TypeError as error:
        raise InputError(f"{name}: {error}; Settings lists the names") from error
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return content


def _shipped() -> Any:
    return resources.files(__package__).joinpath("presets")
