"""Define polling intervals and timeouts: one value, which an open cluster or a local backend carries."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

PATIENCE_S: Final = 120.0
LEASE_DURATION_S: Final = 45  # a holder that has not renewed its lock for so long is dead


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Polling intervals and timeouts, in seconds.

    On this machine, `local_ready_s` is how long the application may take to serve a complete page.

    On a cluster, `poll_s` is the pause between two looks, `lock_poll_s` between two at the lock, `away_poll_s` between
    two requests to an API server that is away. `request_s` is for how long one request is retried, `away_s` for how
    long a run waits for the API server. The lock is renewed every `renew_s`; `lease_s` is how long a holder elsewhere
    is watched for its renewal, `lock_s` how long an earlier lock may take to be deleted. `pull_s` is for the pull check
    of images, `clean_s` for a removal, `haste_s` for one with a short deadline. `grace` is a factor for how long a
    pod's problem may last before it is final.
    """

    local_ready_s: float = 30.0
    poll_s: float = 0.5
    lock_poll_s: float = 0.3
    away_poll_s: float = 1.0
    request_s: float = 10.0
    away_s: float = PATIENCE_S
    renew_s: float = 15.0
    lease_s: float = LEASE_DURATION_S
    lock_s: float = 60.0
    pull_s: float = 60.0
    install_s: float = 300.0
    accept_s: float = 60.0
    ready_s: float = 180.0
    settle_s: float = 90.0  # connections that were open when a policy was applied may keep the old one for 45 s
    gone_s: float = 120.0
    clean_s: float = 120.0
    haste_s: float = 6.0
    grace: float = 1.0
    clock: Callable[[], float] = time.monotonic


DEFAULT: Final = Timing()
