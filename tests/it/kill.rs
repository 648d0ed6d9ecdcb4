//! `kill -9` under a load of writes, in short; `scripts/accept` does it two hundred times.

use std::time::Duration;

use serde_json::{Value, json};

use crate::server::Server;

/// Models elsewhere, which nobody asks: a start takes a moment.
const ELSEWHERE: [(&str, &str); 5] = [
    ("STT_MODEL", "openai/whisper-1"),
    ("LLM_MODEL", "openai/gpt-4o-mini"),
    ("TTS_MODEL", "openai/tts-1"),
    ("OPENAI_API_KEY", "nobody"),
    ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1"),
];
const WRITERS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_kill_9() {
    let mut data = tempfile::tempdir().unwrap();
    let mut saved: Vec<String> = Vec::new();
    for round in 0..4_u64 {
        let mut server = Server::start_in(data, &ELSEWHERE).await;
        all_there(&server.address, &saved).await;
        let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(write(server.address.clone()))).collect();
        tokio::time::sleep(Duration::from_millis(150 + 130 * round)).await;
        server.process.kill().await.unwrap();
        for writer in writers {
            saved.extend(writer.await.unwrap());
        }
        data = server.data;
    }
    assert!(saved.len() > 8, "only {} writes were answered", saved.len());
    // A start refuses a file that is not sound.
    let server = Server::start_in(data, &ELSEWHERE).await;
    all_there(&server.address, &saved).await;
}

/// Makes characters until the server is gone, and says which were acknowledged.
async fn write(address: String) -> Vec<String> {
    let client = reqwest::Client::new();
    let mut saved = Vec::new();
    loop {
        let request = client.post(format!("http://{address}/api/characters")).json(&json!({"name": "Kim"}));
        let Ok(answer) = request.send().await else { return saved };
        if answer.status() == 429 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        assert_eq!(answer.status(), 201);
        let Ok(made) = answer.json::<Value>().await else { return saved };
        saved.push(made["id"].as_str().unwrap().to_owned());
    }
}

async fn all_there(address: &str, saved: &[String]) {
    let client = reqwest::Client::new();
    for id in saved {
        let answer = client.get(format!("http://{address}/api/characters/{id}")).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{id}");
    }
}
