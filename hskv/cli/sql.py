"""Whether a URL of HandlerSocket or of SQL shows a secret."""

import re
from typing import Final
from urllib.parse import unquote

_PASSWORD: Final = re.compile(r"://[^:@/?]*:[^@/?]+@")


def holds_password(url: str) -> bool:
    """Whether a URL has a secret in it, of SQL or of HandlerSocket."""
    texts = (url, unquote(url))
    return "write_secret=" in url or any(_PASSWORD.search(text) for text in texts)
