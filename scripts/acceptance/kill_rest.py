#!/usr/bin/env python3
"""kill -9 under a load of writes over REST: whatever was answered 201 must be in the database afterwards, and the database sound.

usage: kill_rest.py BINARY ROUNDS [SERVE ARGUMENTS…]

Starts `BINARY serve` on a temporary database, with models elsewhere that nobody asks, so that a start takes a moment. Eight
writers make characters, conversations and messages as fast as they are answered; at a random moment the server is killed.
"""
import concurrent.futures, http.client, json, os, random, signal, socket, sqlite3, subprocess, sys, tempfile, threading, time

WRITERS = 8
ELSEWHERE = {
    "STT_MODEL": "openai/whisper-1", "LLM_MODEL": "openai/gpt-4o-mini", "TTS_MODEL": "openai/tts-1",
    "OPENAI_API_KEY": "nobody", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(connection, path, body):
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status == 429:  # a limit of requests is no failure to write
        time.sleep(0.05)
        return None
    if answer.status != 201:
        raise RuntimeError(f"{path}: {answer.status} {content[:300]}")
    return json.loads(content)["id"]


def write(port, stop, doors):
    """The ids that were acknowledged, by table."""
    saved = {"characters": [], "conversations": [], "messages": []}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    number = 0
    try:
        while not stop.is_set():
            number += 1
            if number % 10 == 1:
                saved["characters"].append(post(connection, "/api/characters", {"name": f"Kim {number}", "system_prompt": "Say little."}))
            if "/api/messages" not in doors:
                continue
            if number % 5 == 1:
                saved["conversations"].append(post(connection, "/api/conversations", {"title": f"Talk {number}"}))
            conversation = next((id for id in reversed(saved["conversations"]) if id), None)
            if conversation:
                message = {"conversation_id": conversation, "role": "user", "content": "word " * random.randrange(1, 400)}
                saved["messages"].append(post(connection, "/api/messages", message))
    except (OSError, http.client.HTTPException):
        pass  # killed
    return {table: [id for id in ids if id] for table, ids in saved.items()}


def doors_of(port, server):
    for _ in range(600):
        if server.poll() is not None:
            sys.exit(f"the server ended with {server.returncode}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/openapi.json")
            return json.loads(connection.getresponse().read())["paths"]
        except OSError:
            time.sleep(0.02)
    sys.exit("the server did not answer")


def main():
    binary, rounds, extra = os.path.abspath(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    lost = total = 0
    with tempfile.TemporaryDirectory() as folder:
        known = {"characters": set(), "conversations": set(), "messages": set()}
        for round in range(rounds):
            port, stop = free_port(), threading.Event()
            server = subprocess.Popen([binary, "serve", "--port", str(port), "--data-dir", folder, *extra], cwd=folder,
                                      env={**os.environ, **ELSEWHERE}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            doors = doors_of(port, server)
            with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
                writing = [pool.submit(write, port, stop, doors) for _ in range(WRITERS)]
                time.sleep(random.uniform(0.02, 1.0))
                server.send_signal(signal.SIGKILL)
                server.wait()
                stop.set()
            for done in writing:
                for table, ids in done.result().items():
                    known[table].update(ids)
                    total += len(ids)
            database = sqlite3.connect(os.path.join(folder, "aichat.db"))
            for check in ("integrity_check", "foreign_key_check"):
                found = database.execute(f"pragma {check}").fetchall()
                assert found in ([("ok",)], []), f"{check}: {found}"
            gone = 0
            for table, ids in known.items():
                present = {row[0] for row in database.execute(f"select id from {table}")}
                gone += len(ids - present)
            database.close()
            lost += gone
            print(f"round {round + 1}: {total} acknowledged so far, {gone} of them not there", flush=True)
    print(f"{rounds} kills, {total} acknowledged writes, {lost} lost")
    sys.exit(bool(lost) or not total)


if __name__ == "__main__":
    main()
