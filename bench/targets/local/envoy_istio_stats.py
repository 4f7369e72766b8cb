"""Which statistics a sidecar keeps: Istio's few, since every counter more costs CPU, and what proofs need.

Added to Istio's are counters that only move with a connection, a TLS handshake or a retry, never with an ordinary
request.
"""

from typing import Any, Final

Json = dict[str, Any]

_ISTIO_PATTERNS: Final[tuple[Json, ...]] = (
    {"prefix": "reporter="},
    {"prefix": "cluster_manager"},
    {"prefix": "listener_manager"},
    {"prefix": "server"},
    {"prefix": "cluster.xds-grpc"},
    {"prefix": "wasm"},
    {"suffix": "rbac.allowed"},
    {"suffix": "rbac.denied"},
    {"suffix": "shadow_allowed"},
    {"suffix": "shadow_denied"},
    {"safe_regex": {"regex": r"vhost\..*\.route\..*"}},
    {"prefix": "component"},
    {"prefix": "istio"},
)
_PROOF_PATTERNS: Final[tuple[Json, ...]] = (
    {"suffix": "ssl.handshake"},
    {"safe_regex": {"regex": r".*\.ssl\.(versions|ciphers|curves)\..*"}},
    {"suffix": "upstream_rq_retry"},
    {"safe_regex": {"regex": r".*\.upstream_cx_http[12]_total"}},
)
_TAGS: Final[tuple[tuple[str, str], ...]] = (
    ("cluster_name", r"^cluster(\.(.+);)"),
    (
        "http_conn_manager_prefix",
        r"^http\.(((?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*));\.)",
    ),
    ("thread_name", r"^server(\.(.+))\.watchdog"),
    ("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("response_code", r"_rq(_(\d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    (
        "http_conn_manager_listener_prefix",
        r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    ("listener_address", r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("mongo_prefix", r"^mongo\.(.+?)\.(collection|cmd|cx_|op_|delays_|decoding_)(.*?)$"),
    ("cache", r"(cache\.(.+?)\.)"),
    ("component", r"(component\.(.+?)\.)"),
    ("tag", r"(tag\.(.+?);\.)"),
    ("wasm_filter", r"(wasm_filter\.(.+?)\.)"),
    ("authz_enforce_result", r"rbac(\.(allowed|denied))"),
    ("authz_dry_run_action", r"(\.istio_dry_run_(allow|deny)_)"),
    ("authz_dry_run_result", r"(\.shadow_(allowed|denied))"),
)


def stats_config() -> Json:
    """The bootstrap's `stats_config`."""
    return {
        "use_all_default_tags": False,
        "stats_tags": [{"tag_name": name, "regex": regex} for name, regex in _TAGS],
        "stats_matcher": {"inclusion_list": {"patterns": [*_ISTIO_PATTERNS, *_PROOF_PATTERNS]}},
    }
