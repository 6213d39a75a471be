"""Who may: by the host that is asked for, and by the API key. Both roads ask `Access`."""

import re
from collections.abc import Sequence

from fastapi import Request

from server.errors import Forbidden, InvalidInput, NotFound, Unauthorized
from server.keys import Keyring, Keys, Scope
from server.rest.reply import Headers, values_of

_BEARER = re.compile(r"bearer +(\S+) *", re.IGNORECASE)
_PORT = re.compile(r":[0-9]{1,5}$")


class Access:
    """Without keys everybody may predict, and nobody may do more; without hosts every one is trusted.

    A host is a name or an address, in lower case, or a domain with all that is in it: `*.example.org`.
    """

    def __init__(self, keys: Keys | None = None, hosts: Sequence[str] = ()) -> None:
        self._keys = keys
        self._names = frozenset(hosts)
        self._domains = tuple(host[1:] for host in hosts if host.startswith("*."))
        self._any_host = not hosts
        self._open = keys is None and not hosts

    @property
    def has_keys(self) -> bool:
        return self._keys is not None

    def check(self, headers: Headers, scope: Scope) -> str | None:
        """The name of the key by which a request may; None if it needs none.

        Raises InvalidInput if it does not name a trusted host, Unauthorized without a known key, Forbidden with one
        that has other scopes.
        """
        if self._open and scope == "predict":
            return None
        self.check_host(headers)
        return self.check_key(headers, scope)

    def check_key(self, headers: Headers, scope: Scope) -> str | None:
        """The same, of whatever host."""
        if self._keys is None:
            if scope == "predict":
                return None
            raise Unauthorized("expected a key, and this server knows none")
        return _check_key(self._keys.current(), headers, scope)

    def check_host(self, headers: Headers) -> None:
        """Raises InvalidInput."""
        if self._any_host:
            return
        given = (values_of(headers, b"host") or [""])[0]
        name = _PORT.sub("", given.lower())
        if name not in self._names and not name.endswith(self._domains):
            raise InvalidInput(f"Host: expected one that this server trusts; got {given[:64]!r}")


def _check_key(keyring: Keyring, headers: Headers, scope: Scope) -> str | None:
    secrets = _secrets_of(headers)
    if not secrets:
        if keyring.open and scope == "predict":
            return None
        raise Unauthorized("expected a key, as `Authorization: Bearer …` or `X-Api-Key: …`; got none")
    if len(secrets) > 1:
        raise Unauthorized("expected one key; got several")
    key = keyring.find(secrets[0])
    if key is None:
        raise Unauthorized("expected a key that this server knows; got another")
    if scope not in key.scopes:
        raise Forbidden(f"expected a key with the scope {scope}; that of {key.name!r} has not")
    return key.name


def _secrets_of(headers: Headers) -> list[bytes]:
    """The keys that a request brings; authorization of another scheme is meant for somebody else."""
    bearers = [match[1] for value in values_of(headers, b"authorization") if (match := _BEARER.fullmatch(value))]
    return [secret.encode("latin-1") for secret in (*bearers, *values_of(headers, b"x-api-key"))]


# ---- For FastAPI: what stands before routes -------------------------------------------------------------------------


async def trusted(request: Request) -> None:
    """Pages, which a browser asks for without any key."""
    _access(request).check_host(request.headers.raw)


async def may_predict(request: Request) -> None:
    """Predictions, and what is said of ensembles."""
    _access(request).check(request.headers.raw, "predict")


async def may_administer(request: Request) -> str | None:
    """Changes of what is served. Returns the name of the key. At another port than the admin's there is no route."""
    port: int | None = request.app.state.admin_port
    if port is not None and (request.scope["server"] or (None, None))[1] != port:
        raise NotFound("no such route; GET / lists them")
    return _access(request).check(request.headers.raw, "admin")


def _access(request: Request) -> Access:
    access: Access = request.app.state.access
    return access
