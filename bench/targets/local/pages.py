"""Product pages as a browser asks for them: one after another on one connection, after a login if need be."""

import http.client
from collections.abc import Mapping
from urllib.parse import urlencode

from bench.bookinfo.login import COOKIE
from bench.targets.asking import Answer, in_words
from bench.targets.local.calls import TIMEOUT_S

_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def ask_for_pages(port: int, *, host: str, user: str, count: int) -> tuple[Answer, ...]:
    """`count` answers at 127.0.0.1:`port`, as `user` gets them, or with an empty name somebody who has not logged in.
    Fewer, the last one telling why, where the login or the connection failed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    answers: list[Answer] = []
    headers = {"Host": host}
    try:
        if user:
            login = _log_in(connection, user, headers)
            if COOKIE not in login.headers.get("set-cookie", ""):
                return (login,)
            headers["Cookie"] = login.headers["set-cookie"].partition(";")[0]
        for _ in range(count):
            connection.request("GET", "/productpage", headers=headers)
            answers.append(_answer(connection))
    except (OSError, http.client.HTTPException) as error:
        answers.append(Answer(0, b"", {}, refused=in_words(type(error).__name__, str(error), timeout_s=TIMEOUT_S)))
    finally:
        connection.close()
    return tuple(answers)


def _log_in(connection: http.client.HTTPConnection, user: str, headers: Mapping[str, str]) -> Answer:
    """As Bookinfo does it: any password will do."""
    connection.request("POST", "/login", body=urlencode({"username": user, "passwd": ""}), headers={**headers, **_FORM})
    return _answer(connection)


def _answer(connection: http.client.HTTPConnection) -> Answer:
    answer = connection.getresponse()
    return Answer(answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()})
