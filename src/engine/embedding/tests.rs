use futures::executor::block_on;

use super::*;
use crate::testing::{fixture, model};

#[derive(Deserialize)]
struct Case {
    text: String,
    tokens: usize,
    vector: Vec<f32>,
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&fs::read(fixture("embedding/embedding_parity.json")).unwrap()).unwrap()
}

fn engine() -> BertEngine {
    let name = "all-minilm-l6-v2";
    BertEngine::load(name, &model(name), &Device::Cpu, Precedence::default()).unwrap()
}

fn embed(engine: &BertEngine, texts: &[&str]) -> Result<Embeddings, ProviderError> {
    let texts = texts.iter().map(|text| (*text).to_owned()).collect();
    block_on(engine.embed(EmbedRequest { texts, ..EmbedRequest::default() }))
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn agrees_with_transformers_one_by_one_and_in_a_batch() {
    let (engine, cases) = (engine(), cases());
    let texts: Vec<&str> = cases.iter().map(|case| case.text.as_str()).collect();
    let together = embed(&engine, &texts).unwrap();
    assert_eq!(&*together.served_by, "all-minilm-l6-v2");
    assert_eq!(together.tokens, cases.iter().map(|case| case.tokens).sum::<usize>());
    for (case, batched) in cases.iter().zip(&together.vectors) {
        let alone = embed(&engine, &[&case.text]).unwrap();
        assert_eq!(alone.tokens, case.tokens, "{}", case.text);
        for vector in [&alone.vectors[0], batched] {
            assert!((cosine(vector, vector) - 1.0).abs() < 1e-4, "{}", case.text);
            let near = cosine(vector, &case.vector);
            assert!(near > 0.9999, "{}: {near}", case.text);
        }
    }
    // The two sentences about a meal, and one about a fox.
    let [meal, other, fox] = [1, 2, 3].map(|index: usize| &together.vectors[index]);
    assert!(cosine(meal, other) > cosine(meal, fox) + 0.3);
}

#[test]
fn a_text_that_is_too_long_is_refused_by_its_index() {
    let engine = engine();
    let (fits, too_long) = (vec!["word"; 254].join(" "), vec!["word"; 255].join(" "));
    assert_eq!(embed(&engine, &[&fits]).unwrap().tokens, 256);
    let error = embed(&engine, &["short", &too_long]).unwrap_err();
    let ProviderError::InvalidRequest { field: "input", message } = &error else { panic!("{error:?}") };
    assert!(message.contains("text 1 has 257 tokens") && message.contains("256"), "{message}");
    // Names of special tokens are plain text: no text ends another's window.
    assert!(embed(&engine, &["[PAD] [SEP]"]).unwrap().tokens > 4);
}

#[test]
fn whoever_leaves_is_not_worked_for() {
    let engine = engine();
    let texts: Vec<String> = (0..2_000).map(|number| format!("{number} {}", "word ".repeat(200))).collect();
    drop(engine.embed(EmbedRequest { texts, ..EmbedRequest::default() }));
    let started = std::time::Instant::now();
    embed(&engine, &["hello"]).unwrap();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn batches_hold_texts_of_one_length_within_their_bounds() {
    let texts: Vec<Vec<u32>> = [256, 3, 256, 4, 200].iter().map(|length| vec![7; *length]).collect();
    assert_eq!(batches(&texts), [vec![1, 3, 4, 0, 2]]);
    let many: Vec<Vec<u32>> = (0..100).map(|_| vec![7; 256]).chain((0..100).map(|_| vec![7; 2])).collect();
    let batches = batches(&many);
    let mut seen: Vec<usize> = batches.concat();
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    for batch in &batches {
        let longest = batch.iter().map(|&index| many[index].len()).max().unwrap();
        assert!(batch.len() <= BATCH_TEXTS && batch.len() * longest <= BATCH_TOKENS, "{} of {longest}", batch.len());
    }
}

#[test]
fn a_broken_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let load = || {
        let loaded = BertEngine::load("broken", folder.path(), &Device::Cpu, Precedence::default());
        loaded.err().unwrap().to_string()
    };
    assert!(load().contains("config.json"), "{}", load());
    let whole = model("all-minilm-l6-v2");
    for (file, next) in [("config.json", "tokenizer.json"), ("tokenizer.json", "model.safetensors")] {
        fs::copy(whole.join(file), folder.path().join(file)).unwrap();
        assert!(load().contains(next), "{}", load());
    }
    fs::write(folder.path().join("sentence_bert_config.json"), r#"{"max_seq_length": 5000}"#).unwrap();
    assert!(load().contains("5000"), "{}", load());
}

#[test]
fn the_estimate_covers_the_weights() {
    let folder = model("all-minilm-l6-v2");
    let weights = fs::metadata(folder.join("model.safetensors")).unwrap().len();
    let estimate = BertEngine::memory_estimate(&folder).unwrap();
    assert!((weights..4 * weights).contains(&estimate), "{estimate} for {weights}");
}
