"""The REST interface under /api: one function per command, and the tables that name them."""

import re
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import tokens
from .builder import Builder
from .http_types import Refused, Request, Response, form_file, html_response, json_body, json_response, message
from .journal import Journal
from .plc import Plc
from .settings import VERSION
from .users import User, Users


@dataclass(frozen=True, kw_only=True)
class Device:
    """The parts that routes speak to. `revoked` holds token ids, in memory only: a restart forgives them."""

    users: Users
    plc: Plc
    builder: Builder
    journal: Journal
    jwt_key: str
    token_seconds: int
    revoked: set[str] = field(default_factory=set)


def respond(device: Device, request: Request) -> Response:
    """The response to any request; a spoilt user database is a 500 page."""
    try:
        return _route(device, request)
    except Refused as refused:
        return refused.response
    except tokens.TokenRefused as refused:
        return message(refused.message, refused.status)
    except (sqlite3.DatabaseError, UnicodeEncodeError) as error:
        device.journal.write("ERROR", f"user database, {request.path}: {error}")
        return html_response(500)


def _route(device: Device, request: Request) -> Response:
    if not request.path.startswith("/api/"):
        return html_response(404)
    command, slash, argument = request.path.removeprefix("/api/").partition("/")
    method = "GET" if request.method == "HEAD" else request.method
    if slash:
        if command not in {name for _, name in WITH_ID} or not re.fullmatch(r"[0-9]{1,18}", argument):
            return html_response(404)
        with_id = WITH_ID.get((method, command))
        return with_id(device, request, argument) if with_id else html_response(405)
    if not command:
        return html_response(404)
    if handler := OPEN.get((method, command)):
        return handler(device, request)
    if method not in ("GET", "POST"):
        return html_response(405)
    _caller(device, request)
    if handler := WITH_TOKEN.get((method, command)):
        return handler(device, request)
    return json_response({"error" if method == "GET" else "PostRequestError": "Unknown argument"})


def _caller(device: Device, request: Request) -> tuple[User, tokens.Claims]:
    """Who asks, by token; raises TokenRefused."""
    header = request.headers.get("authorization")
    if header is None:
        raise tokens.TokenRefused(401, "Missing Authorization Header")
    words = header.split()
    if len(words) != 2 or words[0] != "Bearer":
        raise tokens.TokenRefused(401, "Bad Authorization header. Expected 'Authorization: Bearer <JWT>'")
    claims = tokens.verify(device.jwt_key, words[1])
    if claims.token_id in device.revoked:
        raise tokens.TokenRefused(401, "Token has been revoked")
    user = device.users.find(claims.user_id)
    if user is None:
        raise tokens.TokenRefused(401, f"Error loading the user {claims.user_id}")
    return user, claims


def version(device: Device, request: Request) -> Response:
    return json_response({"version": VERSION})


def users_info(device: Device, request: Request) -> Response:
    """Tells anybody whether there is an account, and a caller with a token which ones."""
    try:
        users = device.users.all()
    except sqlite3.DatabaseError:
        return message("User retrieval error", 500)
    if not users:
        return message("No users found", 404)
    if "authorization" not in request.headers:
        return message("Users found")
    _caller(device, request)
    return json_response([asdict(user) for user in users])


def create_user(device: Device, request: Request) -> Response:
    """Open to anybody for the first account; afterwards it takes a token. There is no password policy."""
    try:
        first = not device.users.all()
    except sqlite3.DatabaseError:
        return message("User creation error", 401)
    if not first and "authorization" not in request.headers:
        return message("User already created!", 401)
    if not first:
        _caller(device, request)
    data = json_body(request)
    username, password = data.get("username"), data.get("password")
    if not username or not password:
        return message("Missing username or password", 400)
    try:
        user_id = device.users.create(str(username), str(password), str(data.get("role", "user")))
    except sqlite3.IntegrityError:
        return message("Username already exists", 409)
    return json_response({"msg": "User created", "id": user_id}, 201)


def login(device: Device, request: Request) -> Response:
    """Mind the shapes: a wrong password is a bare JSON string, a missing one breaks the real runtime."""
    data = json_body(request)
    password = data.get("password")
    if not isinstance(password, str):
        return html_response(500)
    user = device.users.named(str(data.get("username")))
    if user is None or not device.users.password_matches(user, password):
        return json_response("Wrong username or password", 401)
    return json_response({"access_token": tokens.issue(device.jwt_key, user.id, device.token_seconds)})


def logout(device: Device, request: Request) -> Response:
    _, claims = _caller(device, request)
    device.revoked.add(claims.token_id)
    return message("Access token revoked")


def user_info(device: Device, request: Request, user_id: str) -> Response:
    _caller(device, request)
    user = device.users.find(user_id)
    return json_response(asdict(user)) if user else message("User not found", 404)


def change_password(device: Device, request: Request, user_id: str) -> Response:
    """Tokens given out before stay valid."""
    _caller(device, request)
    data = json_body(request)
    old, new = data.get("old_password"), data.get("new_password")
    if not old or not new:
        return message("Both old and new passwords are required", 400)
    user = device.users.find(user_id)
    if user is None:
        return message("User not found", 404)
    if not device.users.password_matches(user, str(old)):
        return message("Old password is incorrect", 403)
    device.users.set_password(user, str(new))
    return message("Password changed")


def delete_user(device: Device, request: Request, user_id: str) -> Response:
    """Any user may delete any user; the caller's token is gone afterwards, whomever it deleted."""
    _, claims = _caller(device, request)
    user = device.users.find(user_id)
    if user is None:
        return message("User not found", 404)
    device.users.delete(user)
    device.revoked.add(claims.token_id)
    return message("User deleted")


def status(device: Device, request: Request) -> Response:
    answer: dict[str, object] = {"status": f"STATUS:{device.plc.state()}"}
    if request.query.get("include_stats", "").lower() == "true":
        answer["stats"] = device.plc.statistics()
    return json_response(answer)


def runtime_logs(device: Device, request: Request) -> Response:
    first = request.query.get("id", "0")
    if not re.fullmatch(r"-?[0-9]{1,18}", first):
        return json_response({"error": f"id={first}: a number was expected"}, 500)
    return json_response({"runtime-logs": device.journal.since(int(first), request.query.get("level"))})


def serial_ports(device: Device, request: Request) -> Response:
    found = sorted(path for pattern in ("ttyUSB*", "ttyACM*", "ttyS*") for path in Path("/dev").glob(pattern))
    return json_response({"ports": [{"device": str(path), "description": path.name} for path in found]})


Handler = Callable[[Device, Request], Response]

OPEN: dict[tuple[str, str], Handler] = {
    ("GET", "version"): version,
    ("GET", "get-users-info"): users_info,
    ("POST", "create-user"): create_user,
    ("POST", "login"): login,
}

WITH_TOKEN: dict[tuple[str, str], Handler] = {
    ("POST", "logout"): logout,
    ("GET", "ping"): lambda device, request: json_response({"status": "PING:OK"}),
    ("GET", "status"): status,
    ("GET", "start-plc"): lambda device, request: json_response({"status": device.plc.start()}),
    ("GET", "stop-plc"): lambda device, request: json_response({"status": device.plc.stop()}),
    ("POST", "upload-file"): lambda device, request: json_response(device.builder.upload(form_file(request, "file"))),
    ("GET", "compilation-status"): lambda device, request: json_response(device.builder.report()),
    ("GET", "runtime-logs"): runtime_logs,
    ("GET", "serial-ports"): serial_ports,
}

WITH_ID: dict[tuple[str, str], Callable[[Device, Request, str], Response]] = {
    ("GET", "get-user-info"): user_info,
    ("PUT", "password-change"): change_password,
    ("DELETE", "delete-user"): delete_user,
}
