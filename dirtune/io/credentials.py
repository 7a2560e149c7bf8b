"""Secrets in the URLs of locations, which no message may show. Without pyarrow, because every command imports this module."""

import re
from pathlib import Path

# A password may contain any character, because secret keys that were not quoted do: slashes, `?`, `#`, even blanks. The
# user's name may be missing. A port is no password.
_CREDENTIALS = re.compile(
    r"""://(?:[^/?#:@\s]+@|[^/?#:@\s]*:(?:(?!\d{1,5}(?:[\s'")]|$))\S*@|(?!\d{1,5}(?:[/\s'")]|$))[^\n'"]*@))"""
)
_SECRET_PARAMETERS = re.compile(
    r"""([?&;][^=&;?\s'"]*(?:secret|token|pass|key|cred|sig|sas|auth(?!ority))[^=&;?\s'"]*=)[^&\s'")]*""", re.IGNORECASE
)


def remove_credentials(text: str | Path) -> str:
    """Return a location, or a text that contains locations, without the secrets of its URLs.

    User and password are removed, and the values of parameters whose names are those of secrets, such as `client_secret`.
    """
    without_users = _CREDENTIALS.sub("://", str(text))
    return _SECRET_PARAMETERS.sub(r"\1***", without_users) if "://" in without_users else without_users
