#!/usr/bin/env python3
"""Planted secrets are in no log, answer or error, and are sent to nobody but their service.

usage: planted_secrets.py AICHAT_BINARY

Starts a server of its own with LOG=trace and six secrets: the server's key, one of the database, the keys of two services, the hub's
token, and (in a start that fails) a password in a service's address; what a login and a ticket give out are two more. Its services are a stand-in of this script, which answers with each kind of error and repeats
whatever it was sent. Then it asks every door rightly and wrongly, with and without the key, and looks for the secrets in all
answers, in the log and in the database. Also runs `doctor` and a start with broken settings.
"""
import http.client, http.server, json, os, pathlib, re, secrets, socket, subprocess, sys, tempfile, threading, time

SECRETS = {
    "AICHAT_API_KEY": secrets.token_hex(16),
    "OPENAI_API_KEY": "sk-" + secrets.token_hex(16),
    "OPENROUTER_API_KEY": "sk-or-" + secrets.token_hex(16),
    "HF_TOKEN": "hf_" + secrets.token_hex(16),
    "password": secrets.token_hex(16),
}
SENT = []
# Where the server gives out a secret of its own.
GIVES = ("/api/login", "/api/ws-ticket")


class Service(http.server.BaseHTTPRequestHandler):
    """Answers 401, 429, 500, then 200 with an error, in turn, each time with all that it was sent."""

    turn = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        SENT.append((self.path, dict(self.headers)))
        Service.turn += 1
        status = (401, 429, 500, 200)[Service.turn % 4]
        said = json.dumps({"error": {"message": f"wrong key {self.headers.get('authorization')} {body[:200]!r}", "code": "invalid_api_key"}}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, method, path, body=None, key=None, content_type="application/json"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"content-type": content_type} | ({"authorization": f"Bearer {key}"} if key else {})
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    read = answer.read()
    # A login's cookie and a ticket are secrets that the server gives out itself: they are looked for in everything else.
    if path in GIVES and answer.status == 200:
        given = read.decode() + str(answer.getheader("set-cookie"))
        SECRETS[path] = re.search(r'(?:aichat_login=|"ticket":")(\w+)', given).group(1)
        return str(answer.status)
    return f"{answer.status} {answer.getheaders()} {read!r}"


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    service = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{service.server_port}/v1"
    said = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        port = free_port()
        environment = os.environ | {name: value for name, value in SECRETS.items() if name.isupper()} | {
            "PORT": str(port), "DATA_DIR": str(folder), "DATABASE_URL": f"sqlite://{folder}/aichat.db", "PROFILE": "starter", "LOG": "aichat=trace,info",
            "OPENAI_BASE_URL": base, "OPENROUTER_BASE_URL": base, "LLM_FALLBACK": "openai/one,openrouter/a/two", "TTS_FALLBACK": "openai/tts-1", "STT_FALLBACK": "openai/whisper-1",
        }
        doctor = subprocess.run([binary, "doctor"], env=environment, cwd=folder, capture_output=True, text=True)
        said.append(doctor.stdout + doctor.stderr)
        broken = subprocess.run([binary, "serve"], env=environment | {"OPENAI_API_KEY": SECRETS["OPENAI_API_KEY"] + " é", "OPENROUTER_BASE_URL": f"https://user:{SECRETS['password']}@example.org/v1", "DEVICE": "toaster"}, cwd=folder, capture_output=True, text=True)
        assert broken.returncode != 0
        said.append(broken.stdout + broken.stderr)
        made = subprocess.run([binary, "keys", "create", "probe", "--scope", "admin"], env=environment, cwd=folder, capture_output=True, text=True, check=True)
        SECRETS["database key"] = made.stdout.strip()
        log = open(folder / "log", "w")
        server = subprocess.Popen([binary, "serve"], env=environment, stdout=log, stderr=log, cwd=folder)
        try:
            end = time.monotonic() + 120
            while True:
                try:
                    if ask(port, "GET", "/readyz").startswith("200"):
                        break
                except OSError:
                    pass
                if server.poll() is not None or time.monotonic() > end:
                    sys.exit(f"the server did not start:\n{(folder / 'log').read_text()}")
                time.sleep(0.2)
            key = SECRETS["AICHAT_API_KEY"]
            chat = lambda model: json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4})
            requests = [
                *(("POST", "/v1/chat/completions", chat(model)) for model in ("local", *["openai/gpt-4o"] * 6, *["openrouter/a/b"] * 6, "anthropic/claude", "nobody", "")),
                *(("POST", "/v1/audio/speech", json.dumps({"model": model, "voice": "alloy", "input": "Hi."})) for model in ("tts-1", *["openai/tts-1"] * 4)),
                *(("POST", "/v1/embeddings", json.dumps({"model": model, "input": "x"})) for model in ("local", *["openai/e"] * 4)),
                *(("POST", path, json.dumps({"key": key})) for path in GIVES), ("POST", "/api/login", json.dumps({"key": key, "x": None})[:-1]),
                ("POST", "/v1/chat/completions", "{broken"), ("POST", "/v1/chat/completions", "[]"),
                *(("GET", path, None) for path in ("/v1/models", "/api/providers", "/api/usage", "/metrics", "/healthz", "/readyz", "/nothing", "/ws", "/api/speech/..%2f..%2faichat.db")),
            ]
            for method, path, body in requests:
                for sent in (key, SECRETS["database key"], None, "wrong-" + key[:8]):
                    said.append(ask(port, method, path, body, sent))
            said.append(ask(port, "GET", "/ws?ticket=" + SECRETS["/api/ws-ticket"]))
        finally:
            server.terminate()
            server.wait(40)
        said.append((folder / "log").read_text())
        said += [file.read_bytes().decode("latin-1") for file in folder.rglob("*") if file.is_file()]
    leaks = {name for name, value in SECRETS.items() for text in said if value in text}
    keys = {SECRETS["OPENAI_API_KEY"], SECRETS["OPENROUTER_API_KEY"]}
    carried = {headers.get("Authorization", headers.get("authorization", "")).removeprefix("Bearer ") for _, headers in SENT}
    print(f"{len(said)} texts, {sum(map(len, said))} characters; the stand-in was asked {len(SENT)} times")
    strangers = [name for name in ("AICHAT_API_KEY", "HF_TOKEN") if any(SECRETS[name] in str(sent) for sent in SENT)]
    print(f"leaked: {sorted(leaks) or 'nothing'}; sent to a stranger: {strangers or 'nothing'}; keys that came through: {len(carried & keys)} of 2")
    sys.exit(bool(leaks or strangers or len(SENT) == 0))


main()
