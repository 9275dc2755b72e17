"""How an edge host gets its identity: an id valid for five minutes, then a certificate for it.

The three requests and their answers are those of the cloud protocol ("Provisioning"); each needs the
pre-shared enrolment token as `Authorization: Bearer`. A self-signed certificate is accepted too, because it is
verifiable: its own signature proves the key, its CN must be an id just given out, and afterwards exactly this
certificate is pinned, so that it can vouch for nobody else even if it calls itself a CA.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Set
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from aiohttp import BodyPartReader, web
from cryptography import x509

from services.local_cloud.authority import Authority, certificate_pem, sign_client
from services.local_cloud.clients import ClientRegister
from services.local_cloud.clock import iso
from services.local_cloud.identity import IdentityRefused, check_self_signed, common_name
from services.local_cloud.limits import RateLimit
from services.local_cloud.tokens import bearer_matches
from services.local_cloud.web import ApiError, answer

log = logging.getLogger(__name__)

ID_VALID_SECONDS = 300.0
_MOST_PENDING = 1000
_FIELD_LIMIT = 64 * 1024
_WRONG_TOKEN_COST = 24.0

Enrolled = Callable[[str, x509.Certificate, Literal["issued", "pinned"]], None]


class PendingIds:
    """Ids that were given out and not used yet. Each counts once, for `ID_VALID_SECONDS`."""

    def __init__(self, taken: Callable[[], Set[str]], clock: Callable[[], float] = time.monotonic) -> None:
        self._taken, self._clock = taken, clock
        self._until: dict[str, float] = {}

    def give(self) -> str | None:
        """A new id of eight digits; None when too many are pending."""
        self._forget_old()
        if len(self._until) >= _MOST_PENDING:
            return None
        taken = self._taken()
        while (fresh := f"{secrets.randbelow(10**8):08d}") in self._until or fresh in taken:
            pass
        self._until[fresh] = self._clock() + ID_VALID_SECONDS
        return fresh

    def claim(self, agent_id: str) -> float | None:
        """Use the id up; its deadline, for `give_back`, or None when it is unknown, used or too old."""
        self._forget_old()
        return self._until.pop(agent_id, None)

    def give_back(self, agent_id: str, until: float) -> None:
        """The id was not used after all."""
        self._until[agent_id] = until

    def _forget_old(self) -> None:
        now = self._clock()
        self._until = {agent_id: until for agent_id, until in self._until.items() if until > now}


class Provisioning:
    """The three provisioning handlers. `enrolled` is told every new certificate, after it is durable."""

    def __init__(
        self, *, authority: Authority, register: ClientRegister, ids: PendingIds, token: str, enrolled: Enrolled
    ) -> None:
        self._authority, self._register, self._ids, self._token = authority, register, ids, token
        self._enrolled = enrolled
        self._one_at_a_time = asyncio.Lock()
        self._limit = RateLimit(burst=240, per_second=4)

    def routes(self) -> list[web.RouteDef]:
        """The route table of provisioning."""
        return [
            web.get("/orchestrators/id", self.give_id),
            web.post("/orchestrators/enroll", self.enroll),
            web.post("/orchestrators/certificate", self.pin),
        ]

    async def give_id(self, request: web.Request) -> web.Response:
        """`GET /orchestrators/id` -> `.data.id`, `.data.expiresAt`, `.data.expiresIn` (seconds)."""
        self._admit(request)
        agent_id = self._ids.give()
        if agent_id is None:
            raise ApiError(429, "busy", "too many ids are waiting to be used; try again in five minutes")
        expires_at = iso(datetime.now(UTC) + timedelta(seconds=ID_VALID_SECONDS))
        return _success({"id": agent_id, "expiresAt": expires_at, "expiresIn": int(ID_VALID_SECONDS)})

    async def enroll(self, request: web.Request) -> web.Response:
        """`POST /orchestrators/enroll`, field `csr` (PEM) -> `.data.certificate` (PEM), `.data.message`, `.data.id`."""
        self._admit(request)
        csr = _required(await _form(request), "csr")
        agent_id = _id_in_request(csr)

        def sign() -> x509.Certificate:
            return sign_client(self._authority, csr, agent_id)

        certificate = await self._use_id(agent_id, sign, "issued")
        message = "certificate issued; keep its key on this host"
        return _success({"certificate": certificate_pem(certificate), "message": message, "id": agent_id})

    async def pin(self, request: web.Request) -> web.Response:
        """`POST /orchestrators/certificate`, fields `certificate` (self-signed, PEM) and `id`."""
        self._admit(request)
        fields = await _form(request)
        pem = _required(fields, "certificate")
        agent_id = _required(fields, "id").decode("utf-8", "replace").strip()
        await self._use_id(agent_id, lambda: check_self_signed(pem, agent_id), "pinned")
        return _success({"message": "certificate registered", "id": agent_id})

    async def _use_id(
        self, agent_id: str, produce: Callable[[], x509.Certificate], kind: Literal["issued", "pinned"]
    ) -> x509.Certificate:
        """Make or check the certificate and write it down, in threads: neither may hold up live sessions."""
        until = self._ids.claim(agent_id)
        if until is None:
            raise ApiError(
                404, "not_found", f"the id {agent_id!r} was not given out, was used, or is over 5 minutes old"
            )
        try:
            certificate = await asyncio.to_thread(produce)
            async with self._one_at_a_time:
                await asyncio.to_thread(self._register.add, certificate, agent_id, kind)
        except IdentityRefused as problem:
            self._ids.give_back(agent_id, until)
            raise ApiError(400, "invalid", str(problem)) from None
        except OSError:
            self._ids.give_back(agent_id, until)
            raise
        log.info("enrolled agent %s (%s certificate, valid to %s)", agent_id, kind, certificate.not_valid_after_utc)
        self._enrolled(agent_id, certificate, kind)
        return certificate

    def _admit(self, request: web.Request) -> None:
        """Refuse who asks too often (429) or without the enrolment token (401)."""
        address = request.remote or "?"
        wait = self._limit.wait_for(address)
        if wait:
            headers = {"Retry-After": str(int(wait) + 1)}
            raise ApiError(429, "busy", f"too many requests from {address}; try again later", headers)
        if not bearer_matches(request.headers.get("Authorization", ""), self._token):
            self._limit.charge(address, _WRONG_TOKEN_COST)
            log.warning("enrolment with a wrong token from %s", address)
            headers = {"WWW-Authenticate": "Bearer"}
            raise ApiError(401, "refused", "the enrolment token is missing or wrong (file enrol.token)", headers)


def _success(data: dict[str, Any]) -> web.Response:
    return answer({"statusCode": 200, "data": data})


def _id_in_request(csr_pem: bytes) -> str:
    try:
        return common_name(x509.load_pem_x509_csr(csr_pem).subject)
    except ValueError as problem:
        raise ApiError(400, "invalid", f"csr: expected a PEM certificate signing request ({problem})") from None
    except IdentityRefused as problem:
        raise ApiError(400, "invalid", f"csr: {problem}") from None


async def _form(request: web.Request) -> dict[str, bytes]:
    """The multipart fields, each bounded."""
    if request.content_type != "multipart/form-data":
        raise ApiError(400, "invalid", f"expected multipart/form-data, got {request.content_type}")
    fields: dict[str, bytes] = {}
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader):
                fields[part.name or ""] = await _bounded(part)
    except (ValueError, AssertionError) as problem:
        raise ApiError(400, "invalid", f"the multipart body cannot be read: {problem}") from None
    return fields


async def _bounded(part: BodyPartReader) -> bytes:
    content = bytearray()
    while chunk := await part.read_chunk():
        content += chunk
        if len(content) > _FIELD_LIMIT:
            raise ApiError(413, "invalid", f"{part.name}: expected at most {_FIELD_LIMIT} bytes")
    return bytes(content)


def _required(fields: dict[str, bytes], name: str) -> bytes:
    if not fields.get(name):
        raise ApiError(400, "invalid", f"{name}: expected as a multipart field, got none")
    return fields[name]
