use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::audio::{Limits, Mic, Samples, decode_bytes};
use crate::provider::Role;
use crate::session::record::MessageStatus;
use crate::store::LOCAL_OWNER;

async fn recorder() -> (TempDir, Store, Recorder) {
    let data = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite://{}/test.db", data.path().display())).await.unwrap();
    let recorder = Recorder::new(store.of(LOCAL_OWNER), data.path());
    let conversation = recorder.create_conversation(vec![]).await.unwrap();
    let message = Message {
        id: "m1".to_owned(),
        conversation_id: conversation.id,
        role: Role::User,
        character_id: None,
        character_name: None,
        content: "Hello.".to_owned(),
        status: MessageStatus::Completed,
        heard_chars: None,
        metadata: json!({}),
        client_message_id: None,
    };
    recorder.save_message(message).await.unwrap();
    (data, store, recorder)
}

fn said() -> Recording {
    Recording::Said(Mic::new(vec![0.25; Samples::<MIC_HZ>::from_millis(800).as_usize()]))
}

fn files(data: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder(data.path())).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_message_keeps_its_latest_sound_only() {
    let (data, store, recorder) = recorder().await;
    assert!(recorder.keeps_recordings());
    recorder.save_recording("m1".to_owned(), said()).await.unwrap();
    recorder.save_recording("m1".to_owned(), said()).await.unwrap();
    let name = store.of(LOCAL_OWNER).recording("m1").await.unwrap().unwrap();
    assert_eq!(files(&data), std::slice::from_ref(&name));
    let bytes = std::fs::read(path_of(data.path(), &name).unwrap()).unwrap();
    let audio: Speech = decode_bytes(bytes, Limits::default()).unwrap();
    assert!(audio.duration().as_millis().abs_diff(800) < 60, "{:?}", audio.duration());
    // Without a message nothing stays.
    assert!(recorder.save_recording("m2".to_owned(), said()).await.is_err());
    assert_eq!(files(&data).len(), 1);
    remove(data.path(), &[name.clone(), name, "../test.db".to_owned(), "x".to_owned()]).await;
    assert_eq!(files(&data), [""; 0]);
    assert!(data.path().join("test.db").exists());
}

#[tokio::test]
async fn what_belongs_to_no_message_is_swept() {
    let (data, store, recorder) = recorder().await;
    assert_eq!(sweep(data.path(), &store, Duration::ZERO).await.unwrap(), 0, "no folder");
    recorder.save_recording("m1".to_owned(), said()).await.unwrap();
    let lost = folder(data.path()).join("7b0e9b6e-64a8-4d4f-9a0e-3f2f6b2d9f11.opus");
    let unfinished = folder(data.path()).join("7b0e9b6e-64a8-4d4f-9a0e-3f2f6b2d9f11.opus.part");
    std::fs::write(&lost, "lost").unwrap();
    std::fs::write(&unfinished, "lost").unwrap();
    assert_eq!(sweep(data.path(), &store, SETTLED).await.unwrap(), 0, "they are young");
    assert_eq!(sweep(data.path(), &store, Duration::ZERO).await.unwrap(), 2);
    assert_eq!(files(&data).len(), 1);
}
