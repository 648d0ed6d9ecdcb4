#!/usr/bin/env python3
"""A full disk: writes are refused with 507, reads go on, nothing is damaged, and all is well again once there is room.

usage: full_disk.py BINARY        as root, since it mounts a tmpfs of a few megabytes for the server's data
"""
import http.client, json, os, sqlite3, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from kill_rest import ELSEWHERE, doors_of, free_port  # noqa: E402

ROUNDS = 3


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or "null")


def fill(port):
    """Writes until a write is refused; the ids of those that were not."""
    saved = []
    for number in range(2000):
        status, answer = ask(port, "POST", "/api/characters", {"name": f"Kim {number}", "system_prompt": "word " * 1500})
        if status == 429:
            time.sleep(0.1)
        elif status == 201:
            saved.append(answer["id"])
        else:
            assert (status, answer.get("code")) == (507, "insufficient_storage"), (status, answer)
            return saved
    sys.exit("the disk did not get full")


def main():
    binary = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
        try:
            port = free_port()
            server = subprocess.Popen([binary, "serve", "--port", str(port), "--data-dir", folder], cwd="/",
                                      env={**os.environ, **ELSEWHERE}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            doors_of(port, server)
            ballast = os.path.join(folder, "ballast")
            for round in range(ROUNDS):
                with open(ballast, "wb") as file:
                    try:
                        while True:
                            file.write(bytes(65536)) and file.flush()
                            space = os.statvfs(folder)
                            if space.f_bavail * space.f_bsize < 1_000_000:
                                break
                    except OSError:
                        pass
                saved = fill(port)
                for id in saved:
                    assert ask(port, "GET", f"/api/characters/{id}")[0] == 200, id
                os.remove(ballast)
                status, answer = ask(port, "POST", "/api/characters", {"name": "After", "system_prompt": "word"})
                assert status == 201, (status, answer)
                for id in saved:  # room for the next round
                    assert ask(port, "DELETE", f"/api/characters/{id}")[0] == 204, id
                print(f"round {round + 1}: {len(saved)} saved, then 507; saved again once there was room", flush=True)
            server.terminate()
            assert server.wait(30) == 0
            database = sqlite3.connect(os.path.join(folder, "aichat.db"))
            assert database.execute("pragma integrity_check").fetchall() == [("ok",)]
            assert database.execute("select count(*) from characters where name = 'After'").fetchone()[0] == ROUNDS
            database.close()
        finally:
            server.kill()
            subprocess.run(["umount", folder], check=True)
    print("a full disk is refused, outlived and harmless")


if __name__ == "__main__":
    main()
