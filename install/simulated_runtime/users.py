"""Accounts of the simulated runtime in `restapi.db`, passwords as peppered and salted PBKDF2.

Every call opens the file anew, so that a database spoilt while the device runs is met at once, as
sqlite3.DatabaseError; the routes turn that into the answers of the real runtime.
"""

import hashlib
import hmac
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class User:
    """One account as the interface shows it."""

    id: int
    username: str


class Users:
    """The accounts in the database file `path`, which is made when missing."""

    def __init__(self, path: Path, pepper: str, rounds: int) -> None:
        self._path = path
        self._pepper = pepper
        self._rounds = rounds

    def all(self) -> list[User]:
        return [User(*row) for row in self._run("SELECT id, username FROM users ORDER BY id")]

    def find(self, user_id: str) -> User | None:
        rows = self._run("SELECT id, username FROM users WHERE id = ?", user_id)
        return User(*rows[0]) if rows else None

    def named(self, username: str) -> User | None:
        rows = self._run("SELECT id, username FROM users WHERE username = ?", username)
        return User(*rows[0]) if rows else None

    def create(self, username: str, password: str, role: str) -> int:
        """The id of the new account; raises sqlite3.IntegrityError when the name is taken."""
        hashed = self._hash(password, os.urandom(16).hex(), self._rounds)
        query = "INSERT INTO users (username, role, password) VALUES (?, ?, ?) RETURNING id"
        return int(self._run(query, username, role, hashed)[0][0])

    def password_matches(self, user: User, password: str) -> bool:
        rows = self._run("SELECT password FROM users WHERE id = ?", user.id)
        if not rows:
            return False
        rounds, salt, _ = rows[0][0].split("$")
        return hmac.compare_digest(str(rows[0][0]), self._hash(password, salt, int(rounds)))

    def set_password(self, user: User, password: str) -> None:
        hashed = self._hash(password, os.urandom(16).hex(), self._rounds)
        self._run("UPDATE users SET password = ? WHERE id = ?", hashed, user.id)

    def delete(self, user: User) -> None:
        self._run("DELETE FROM users WHERE id = ?", user.id)

    def _hash(self, password: str, salt: str, rounds: int) -> str:
        peppered = (password + self._pepper).encode()
        return f"{rounds}${salt}${hashlib.pbkdf2_hmac('sha256', peppered, salt.encode(), rounds).hex()}"

    def _run(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._path, timeout=5)) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS users"
                " (id INTEGER PRIMARY KEY, username TEXT UNIQUE NOT NULL, role TEXT, password TEXT NOT NULL)"
            )
            return database.execute(query, values).fetchall()
