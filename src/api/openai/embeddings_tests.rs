use serde_json::json;

use super::*;
use crate::api::fixture::{Server, server, server_with};
use crate::provider::fake::FakeEmbedder;

async fn lengths() -> Server {
    server_with(|state| state.embedder = Arc::new(FakeEmbedder)).await
}

async fn ask(server: &Server, body: Value) -> (u16, Value) {
    let response = server.post("/v1/embeddings", &body).await;
    (response.status().as_u16(), response.json().await.unwrap())
}

fn floats(item: &Value) -> Vec<f64> {
    item["embedding"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

#[tokio::test]
async fn one_text_and_a_list_come_as_floats() {
    let server = lengths().await;
    let response = server.post("/v1/embeddings", &json!({"model": "local", "input": "", "user": "u"})).await;
    assert_eq!(response.status(), 400);
    let response = server.post("/v1/embeddings", &json!({"model": "local", "input": "abc"})).await;
    assert_eq!((response.status().as_u16(), &response.headers()["x-served-by"]), (200, &"lengths".parse().unwrap()));
    let (_, answer) = ask(&server, json!({"model": "local", "input": ["abc", "a"], "encoding_format": "float"})).await;
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!("lengths")));
    assert_eq!(answer["usage"], json!({"prompt_tokens": 7, "total_tokens": 7}));
    let data = answer["data"].as_array().unwrap();
    assert_eq!((data.len(), &data[1]["index"], &data[1]["object"]), (2, &json!(1), &json!("embedding")));
    assert!((floats(&data[0])[2] - 4.0 / 34_f64.sqrt()).abs() < 1e-6, "{answer}");
}

#[tokio::test]
async fn base64_holds_the_same_floats_and_fewer_dimensions_are_one_long_again() {
    let server = lengths().await;
    let body = json!({"model": "local", "input": "abc", "encoding_format": "base64", "dimensions": 2});
    let (_, answer) = ask(&server, body).await;
    let bytes = STANDARD.decode(answer["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let values: Vec<f32> = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(values.len(), 2);
    assert!(values.iter().all(|value| (value - 0.5_f32.sqrt()).abs() < 1e-6), "{values:?}");
}

#[tokio::test]
async fn every_mistake_names_its_field() {
    let server = lengths().await;
    let many = vec!["a"; MOST_TEXTS + 1];
    let cases = [
        (json!({"input": "a"}), "model"),
        (json!({"model": "local"}), "input"),
        (json!({"model": "local", "input": 7}), "input"),
        (json!({"model": "local", "input": [1, 2]}), "input"),
        (json!({"model": "local", "input": [[1, 2]]}), "input"),
        (json!({"model": "local", "input": []}), "input"),
        (json!({"model": "local", "input": many}), "input"),
        (json!({"model": "local", "input": ["a", " "]}), "input[1]"),
        (json!({"model": "local", "input": "a", "encoding_format": "int8"}), "encoding_format"),
        (json!({"model": "local", "input": "a", "dimensions": 0}), "dimensions"),
        (json!({"model": "local", "input": "a", "dimensions": 4}), "dimensions"),
    ];
    for (body, param) in cases {
        let (status, answer) = ask(&server, body).await;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!(param)), "{answer}");
    }
    let (status, answer) = ask(&server, json!({"model": "text-embedding-3-small", "input": "a"})).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("model_not_found")), "{answer}");
}

#[tokio::test]
async fn without_a_model_the_answer_says_what_to_do() {
    let (status, answer) = ask(&server().await, json!({"model": "local", "input": "a"})).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("model_unavailable")), "{answer}");
}
