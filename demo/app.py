"""A small web app in nothing but Python: it counts visits in Postgres and shows how the migrations are.

It is up before its database is migrated, and says so, as an app under zero-downtime migrations must.
"""

import contextlib
import html
import http.server
import json
import os
import signal
import socket
import struct
import sys
import threading
import urllib.parse

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Demo</title>
<meta http-equiv="refresh" content="2">
<style>body {{ font: 1.1em system-ui; max-width: 40em; margin: 3em auto }} code {{ background: #eee }}</style>
<h1>{greeting}</h1>
<p>{visits}</p>
<p>migrations.status: <code>{status}</code></p>
"""


class DatabaseError(Exception):
    """What the server said."""


def query(sql):
    """The rows of a query over PostgreSQL's protocol, as lists of texts. Enough for a demo."""
    url = urllib.parse.urlsplit(os.environ["DATABASE_URL"])
    directory = urllib.parse.parse_qs(url.query)["host"][0]
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(5)
        connection.connect(directory + "/.s.PGSQL.5432")
        start = struct.pack("!I", 196608) + b"user\0postgres\0database\0postgres\0\0"
        connection.sendall(struct.pack("!I", len(start) + 4) + start)
        reader = connection.makefile("rb")
        answers(reader)
        text = sql.encode() + b"\0"
        connection.sendall(b"Q" + struct.pack("!I", len(text) + 4) + text)
        return answers(reader)


def answers(reader):
    """Everything up to ReadyForQuery; the rows in it."""
    rows, error = [], None
    while True:
        head = reader.read(5)
        if len(head) < 5:
            raise DatabaseError("the server closed the connection")
        kind, length = head[:1], struct.unpack("!I", head[1:])[0]
        body = reader.read(length - 4)
        if kind == b"D":
            rows.append(row(body))
        elif kind == b"E":
            fields = {part[:1]: part[1:] for part in body.split(b"\0") if part}
            error = fields.get(b"M", b"unknown error").decode()
            if fields.get(b"S") == b"FATAL":
                raise DatabaseError(error)
        elif kind == b"Z":
            if error:
                raise DatabaseError(error)
            return rows


def row(body):
    values, position = [], 2
    for _ in range(struct.unpack("!H", body[:2])[0]):
        (length,) = struct.unpack("!i", body[position : position + 4])
        position += 4
        values.append(body[position : position + length].decode() if length >= 0 else None)
        position += max(length, 0)
    return values


def migrations_status():
    """What the entrypoint says, from its marker file."""
    try:
        with open(os.environ["ENTRYPOINT_STATUS_FILE"]) as file:
            return json.load(file)["migrations"]["status"]
    except (KeyError, OSError, ValueError):
        return "unknown"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        greeting, visits = "Hello", "The database isn't there yet; this page is."
        try:
            greeting = query("select text from greetings order by random() limit 1")[0][0]
            visits = f"Visit number {query('select visit($$/$$)')[0][0]}."
        except (OSError, DatabaseError, IndexError) as error:
            visits += f" ({error})"
        page = PAGE.format(
            greeting=html.escape(greeting), visits=html.escape(visits), status=migrations_status()
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_):
        pass


def main():
    port = int(os.environ.get("PORT", "8000"))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        sys.exit(f"demo: cannot listen on port {port}: {error.strerror}; try PORT=8001 make demo")
    server.daemon_threads = True

    def stop(*_):
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"demo: listening on http://127.0.0.1:{port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
