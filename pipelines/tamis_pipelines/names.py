"""Names and quantities as Kubernetes takes them, so that a settings file is refused and not a pod."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator

_NAME = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_SUBDOMAIN = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
_KEY = rf"(?=.{{1,317}}$)({_SUBDOMAIN}/)?{_NAME}"
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = (
    rf"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{{1,5}})?/)?{_PART}(/{_PART})*"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)


def _matching(pattern: str, meaning: str) -> Any:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {meaning}")
        return value

    return AfterValidator(check)


Quantity = Annotated[
    str, _matching(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?", "a quantity of Kubernetes, as in '500m', '4' or '16Gi'")
]
ObjectName = Annotated[
    str, _matching(rf"(?=.{{1,253}}$){_SUBDOMAIN}", "a name of an object in Kubernetes, as in 'tamis-s3'")
]
QueueName = Annotated[
    str,
    _matching(
        rf"((?=.{{1,63}}$){_SUBDOMAIN})?",
        "a name of an object in Kubernetes of 63 characters at most, for it is a label too, as in 'tamis'; or empty",
    ),
]
LabelKey = Annotated[
    str,
    _matching(
        _KEY,
        "a name of 63 letters, digits, '-', '_' and '.' at most, the first and last a letter or digit, with or without "
        "a domain before it, as in 'team' or 'example.com/team'",
    ),
]
OptionalKey = Annotated[str, _matching(rf"({_KEY})?", "empty, or a key of labels and taints, as in 'nvidia.com/gpu'")]
LabelValue = Annotated[
    str,
    _matching(
        rf"({_NAME})?",
        "empty, or 63 letters, digits, '-', '_' and '.' at most, the first and last a letter or digit",
    ),
]
ImageName = Annotated[
    str,
    _matching(rf"({_IMAGE})?", "the name of an image, as in 'registry.example:5000/team/tamis-cpu:1.0'; or empty"),
]
VariableName = Annotated[str, _matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")]
