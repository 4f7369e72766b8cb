"""Make the environment of Locust's processes on this machine."""

import os
import re
import site
from pathlib import Path
from typing import Final

# Settings that change how a client runs, or where it sends: the load uses this machine's loopback without a proxy.
_SETTINGS: Final = re.compile(
    r"(LOCUST|GEVENT|OTEL|XDG|PYTHON|SSL)_?.*|(HTTPS?|ALL|NO)_PROXY|NETRC|(REQUESTS|CURL)_CA_BUNDLE", re.IGNORECASE
)
_KEPT_SETTINGS: Final = ("PYTHONPATH", "PYTHONHOME")
# What a program needs on this machine; a pod has values of its own for these.
_BASIC: Final = (
    *_KEPT_SETTINGS,
    "PATH",
    "LD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
)


def make_load_environment(home: Path) -> dict[str, str | None]:
    """Return the changes of the environment that remove the user's settings, credentials and proxies.

    Locust reads settings from its environment, its folder and its home (`.locust.conf`); its clients read proxies and
    the home's `.netrc`. Packages that are installed for the user alone are still found.
    """
    users = {name: None for name in os.environ if _SETTINGS.fullmatch(name) and name not in _KEPT_SETTINGS}
    return {**users, "HOME": str(home), "PYTHONUSERBASE": site.getuserbase()}


def make_bare_environment(home: Path) -> dict[str, str | None]:
    """Return the changes that remove every variable of the user's: a pod has none of them."""
    return {**{name: None for name in os.environ if name not in _BASIC}, **make_load_environment(home)}
