"""A web shop: POST-like GET /order writes a row and reads it back, in the way of its release. Drains at SIGTERM."""

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2

RELEASE = os.environ["APP_VERSION"]
# Release 2 needs what its migrations make.
WRITE = {
    "1": "insert into orders (item) values ('book') returning id, item",
    "2": "insert into orders (item, note) values ('book', 'gift') returning id, note",
}[RELEASE]
ours = threading.local()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            if not hasattr(ours, "connection"):
                ours.connection = psycopg2.connect(os.environ["DATABASE_URL"])
                ours.connection.autocommit = True
            with ours.connection.cursor() as cursor:
                cursor.execute(WRITE)
                answer, code = f"release {RELEASE}, order {cursor.fetchone()[0]}\n", 200
        except psycopg2.Error as error:
            answer, code = f"release {RELEASE}: {error}", 500
        finally:
            # A thread serves one connection; a database connection of its own is what it is, kept short here.
            if hasattr(ours, "connection"):
                ours.connection.close()
                del ours.connection
        self.send_response(code)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that who is being served is waited for
    request_queue_size = 64


server = Server(("", 8000), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print(f"release {RELEASE} listens", flush=True)
server.serve_forever(poll_interval=0.05)
server.server_close()
print(f"release {RELEASE} is drained", flush=True)
