"""What the Hub answers when it refuses something, takes no more requests, or has a fault of its own."""

from __future__ import annotations

from te_trainer.errors import causes

SIGN_IN = "set HF_TOKEN or call `hf auth login`"
GATED = f"the repository is gated; ask for access at {{address}}, and {SIGN_IN}"
MISSING = f"no such repository; correct the name, and for a private one {SIGN_IN}"


def hub_refusal(error: BaseException, address: str, revision: str | None) -> str | None:
    """Why the Hub does not give what lies at an address, and how to fix it; None where the error says nothing of it."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    for link in causes(error):
        if isinstance(link, GatedRepoError):
            return GATED.format(address=address)
        if isinstance(link, RevisionNotFoundError):
            return f"the repository has no branch, tag or commit '{revision}'; look at {address}"
        if isinstance(link, RepositoryNotFoundError):
            return MISSING
        if isinstance(link, HfHubHTTPError) and link.response.status_code in {401, 403}:
            return (
                f"the Hub refuses the token ({link.response.status_code}); set HF_TOKEN to one that may read {address}"
            )
    return None


def hub_trouble(error: BaseException) -> str | None:
    """What is wrong with the Hub, and how to fix it, where its client gave up because it answered with 429 or 5xx.

    The client often hides it: where its cache holds no file, it speaks of the connection alone.
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
