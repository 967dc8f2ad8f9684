"""The two ways in which a run stops on purpose, each with one sentence for the person who started it, and what lies
behind an exception of a library."""

from __future__ import annotations


class InputError(ValueError):
    """What the user gave cannot be used. The message names the file, row or key, and the mend; exit status 2."""


class DivergedError(RuntimeError):
    """A loss or a score is NaN or infinite. The message names the step or the pair; exit status 1."""


def causes(error: BaseException) -> list[BaseException]:
    """An exception, and those that it came from, the first one last; each once."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__ or following.__context__
    return chain


def hub_trouble(error: BaseException) -> str | None:
    """What is wrong with the Hub, and the mend, where its client gave up because it answered with 429 or 5xx.

    The client's own words often lack it: behind a cache that holds no file they speak of the connection alone.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils._http import parse_ratelimit_headers

    for link in causes(error):
        if not isinstance(link, HfHubHTTPError):
            continue
        status, headers = link.response.status_code, link.response.headers
        if status == 429:
            limit = parse_ratelimit_headers(headers)
            wait = str(limit.reset_in_seconds) if limit and not limit.remaining else headers.get("Retry-After", "")
            when = f"in {wait} seconds" if wait.isdigit() else "in some minutes"
            more = "" if get_token() else ", with a token in HF_TOKEN, for which the Hub allows more"
            return f"the Hub takes no more requests for now (429); try again {when}{more}"
        if status >= 500:
            return f"the Hub has a fault of its own ({status}); try again later"
    return None
