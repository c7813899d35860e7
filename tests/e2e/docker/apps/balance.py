"""A load balancer and its clients: whoever is called `shop` and says ready gets its share; no request is tried twice.

Prints "serving" once it has a backend, and at SIGTERM, or after two minutes, what became of all requests as JSON.
"""

import collections
import http.client
import itertools
import json
import signal
import socket
import threading
import time

CLIENTS = 4
PAUSE_S = 0.04
LOOK_S = 0.05

ready = []
end = threading.Event()
turn = itertools.count()
answers = collections.Counter()
failures = []
waits_ms = []


def get(address, port, path, timeout_s):
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def is_ready(address):
    try:
        return get(address, 9000, "/ready", 1)[0] == 200
    except OSError:
        return False


def look():
    while not end.wait(LOOK_S):
        try:
            found = {info[4][0] for info in socket.getaddrinfo("shop", 8000, type=socket.SOCK_STREAM)}
        except OSError:
            found = set()
        ready[:] = sorted(filter(is_ready, found))


def be_client():
    while not end.wait(PAUSE_S):
        backends = list(ready)
        if not backends:
            failures.append("nobody was ready")
            continue
        address = backends[next(turn) % len(backends)]
        began_s = time.monotonic()
        try:
            status, text = get(address, 8000, "/order", 10)
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{address}: {error!r}")
            continue
        waits_ms.append(round((time.monotonic() - began_s) * 1000))
        if status == 200:
            answers[text.partition(",")[0]] += 1
        else:
            failures.append(f"{address}: {status} {text}")


signal.signal(signal.SIGTERM, lambda *_: end.set())
threads = [threading.Thread(target=look)]
threads[0].start()
while not ready:
    time.sleep(LOOK_S)
threads += [threading.Thread(target=be_client) for _ in range(CLIENTS)]
for thread in threads[1:]:
    thread.start()
print("serving", flush=True)
end.wait(120)
end.set()
for thread in threads:
    thread.join()
print(
    json.dumps({"answers": answers, "failures": failures, "slowest_ms": max(waits_ms, default=0)}), flush=True
)
