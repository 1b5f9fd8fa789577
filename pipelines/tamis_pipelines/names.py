"""Names and quantities that Kubernetes accepts, so that mistakes show in the settings and not in a pod."""

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
    str, _matching(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?", "a Kubernetes quantity, such as '500m', '4' or '16Gi'")
]
ObjectName = Annotated[
    str, _matching(rf"(?=.{{1,253}}$){_SUBDOMAIN}", "the name of a Kubernetes object, such as 'tamis-s3'")
]
QueueName = Annotated[
    str,
    _matching(
        rf"((?=.{{1,63}}$){_SUBDOMAIN})?",
        "empty, or the name of a Kubernetes object with at most 63 characters (it is also a label), such as 'tamis'",
    ),
]
LabelKey = Annotated[
    str,
    _matching(
        _KEY,
        "a key of at most 63 letters, digits, '-', '_' and '.', with a letter or digit first and last; a domain may "
        "precede it, such as 'team' or 'example.com/team'",
    ),
]
OptionalKey = Annotated[
    str, _matching(rf"({_KEY})?", "empty, or the key of a label or taint, such as 'nvidia.com/gpu'")
]
LabelValue = Annotated[
    str,
    _matching(
        rf"({_NAME})?",
        "empty, or at most 63 letters, digits, '-', '_' and '.', with a letter or digit first and last",
    ),
]
ImageName = Annotated[
    str,
    _matching(rf"({_IMAGE})?", "empty, or the name of an image, such as 'registry.example:5000/team/tamis-cpu:1.0'"),
]
VariableName = Annotated[str, _matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")]
