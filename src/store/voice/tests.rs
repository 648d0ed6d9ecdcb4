//! Voices on both databases, and their files.

use std::collections::HashSet;
use std::fs::File;
use std::time::SystemTime;

use super::*;
use crate::provider::{Caller, VoiceBook};
use crate::store::CharacterChange;
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(
    a_voice_comes_back_as_it_was_made_and_changed,
    ids_are_slugs_that_the_owner_has_once,
    pages_hold_each_voice_once_in_every_order,
    nobody_sees_or_changes_what_is_anothers,
    a_voice_in_use_stays_unless_by_force,
    learning_is_noted_for_the_version_that_was_learned,
    uploads_end_after_a_day_and_their_files_too,
    the_library_finds_by_id_then_by_name,
);

fn described(name: &str) -> NewVoice {
    NewVoice {
        name: name.to_owned(),
        method: VoiceMethod::Description,
        engine: "higgs".to_owned(),
        language: "en".to_owned(),
        speaker_description: "a calm man".to_owned(),
        scene_prompt: String::new(),
        transcript: String::new(),
        recording: None,
        status: VoiceStatus::Ready,
    }
}

fn cloned(name: &str, recording: StoredRecording) -> NewVoice {
    NewVoice {
        method: VoiceMethod::Clone,
        transcript: "Words.".to_owned(),
        recording: Some(recording),
        status: VoiceStatus::Processing,
        ..described(name)
    }
}

fn recording(file: &str) -> StoredRecording {
    StoredRecording { file: file.to_owned(), content_hash: "ab".to_owned(), seconds: 4.25 }
}

async fn made(owned: &Owned, new: NewVoice) -> StoredVoice {
    match owned.create_voice(new).await.unwrap() {
        Kept::Done(voice) => voice,
        other => panic!("{other:?}"),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a check that is always passed")]
fn any(_: i64) -> Result<(), RecordError> {
    Ok(())
}

async fn a_voice_comes_back_as_it_was_made_and_changed(store: TestStore) {
    let owned = store.of("anna");
    let voice = made(&owned, cloned("Zoë 世界", recording("a.wav"))).await;
    assert_eq!((voice.id.as_str(), voice.version, voice.status), ("zoe", 1, VoiceStatus::Processing));
    assert_eq!(owned.voice("zoe").await.unwrap(), voice);
    let change = |voice: &mut StoredVoice| {
        voice.name = "Other".to_owned();
        voice.scene_prompt = "A hall.".to_owned();
        voice.recording = Some(recording("b.wav"));
        voice.status = VoiceStatus::Failed;
        voice.error = Some("too \"quiet\"; DROP TABLE voices;--".to_owned());
        Ok::<_, RecordError>(())
    };
    let (before, after) = owned.change_voice("zoe", change).await.unwrap();
    assert_eq!((before, after.version, after.id.as_str()), (voice, 2, "zoe"));
    assert_eq!(owned.voice("zoe").await.unwrap(), after);
    let refuse = |_: &mut StoredVoice| Err(RecordError::Full);
    assert_eq!(owned.change_voice("zoe", refuse).await, Err(RecordError::Full));
    assert_eq!(owned.voice("zoe").await.unwrap(), after);
    let plain = made(&owned, described("Plain")).await;
    assert_eq!(owned.voice("plain").await.unwrap(), plain);
    assert_eq!(owned.count_voices().await, Ok(2));
}

async fn ids_are_slugs_that_the_owner_has_once(store: TestStore) {
    let (anna, bob) = (store.of("anna"), store.of("bob"));
    let mut makers = Vec::new();
    for _ in 0..8 {
        let anna = anna.clone();
        makers.push(tokio::spawn(async move { made(&anna, described("Nora Jones")).await.id }));
    }
    let mut ids = HashSet::new();
    for maker in makers {
        ids.insert(maker.await.unwrap());
    }
    let wanted = (1..=8).map(|n| if n == 1 { "nora-jones".to_owned() } else { format!("nora-jones-{n}") });
    assert_eq!(ids, wanted.collect());
    assert_eq!(made(&bob, described("Nora Jones")).await.id, "nora-jones");
    assert_eq!(made(&bob, described("小明")).await.id, "voice");
    assert_eq!(made(&bob, described("../../etc/passwd")).await.id, "etc-passwd");
}

async fn pages_hold_each_voice_once_in_every_order(store: TestStore) {
    let owned = store.of("anna");
    for name in ["e", "a", "d", "b", "c", "b"] {
        made(&owned, described(name)).await;
    }
    for sort in [VoiceSort::Name, VoiceSort::CreatedAt] {
        for descending in [false, true] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = owned.list_voices(&PageAsk { limit: 4, sort, descending, after }).await.unwrap();
                assert_eq!(page.total, 6);
                seen.extend(page.items.into_iter().map(|voice| (sort.place(&voice).key, voice.id)));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let mut sorted = seen.clone();
            sorted.sort();
            if descending {
                sorted.reverse();
            }
            assert_eq!((seen.len(), &seen), (6, &sorted), "{sort:?} {descending}");
        }
    }
}

async fn nobody_sees_or_changes_what_is_anothers(store: TestStore) {
    let (anna, bob) = (store.of("anna"), store.of("bob"));
    made(&anna, described("Nora")).await;
    let missing = Err(RecordError::NotFound { what: "voice", id: "nora".to_owned() });
    assert_eq!(bob.voice("nora").await, missing);
    assert_eq!(bob.change_voice("nora", |_| Ok::<_, RecordError>(())).await.map(|(_, after)| after), missing);
    assert_eq!(bob.delete_voice("nora", true, any).await.map(drop), missing.map(drop));
    assert_eq!(bob.voice_named("Nora").await, Ok(None));
    assert_eq!(bob.count_voices().await, Ok(0));
    let upload = Upload {
        id: "u".to_owned(),
        recording: recording("x.wav"),
        transcript: "Words.".to_owned(),
        language: "en".to_owned(),
    };
    assert_eq!(anna.create_upload(&upload).await, Ok(Kept::Done(())));
    assert_eq!(anna.upload("u").await, Ok(upload));
    assert_eq!(bob.upload("u").await, Err(RecordError::NotFound { what: "upload", id: "u".to_owned() }));
}

async fn a_voice_in_use_stays_unless_by_force(store: TestStore) {
    let owned = store.of("anna");
    made(&owned, described("Nora")).await;
    let speaks = |name: &str| CharacterChange {
        name: Some(name.to_owned()),
        voice: Some(Some("nora".to_owned())),
        ..CharacterChange::default()
    };
    for name in ["Zed", "Amy"] {
        owned.create_character(speaks(name)).await.unwrap();
    }
    store.of("bob").create_character(speaks("Bob")).await.unwrap();
    let users = Kept::InUse(vec!["Amy".to_owned(), "Zed".to_owned()]);
    assert_eq!(owned.delete_voice("nora", false, any).await, Ok(users));
    let stale = |_| Err(RecordError::Full);
    assert_eq!(owned.delete_voice("nora", true, stale).await, Err(RecordError::Full));
    assert!(owned.voice("nora").await.is_ok());
    assert!(matches!(owned.delete_voice("nora", true, any).await, Ok(Kept::Done(_))));
    let amy = owned.character("amy-001").await.unwrap();
    assert_eq!((amy.character.voice, amy.version), (None, 2));
    let other = store.of("bob").character("bob-001").await.unwrap();
    assert_eq!((other.character.voice.as_deref(), other.version), (Some("nora"), 1));
    assert!(owned.voice("nora").await.is_err());
}

async fn learning_is_noted_for_the_version_that_was_learned(store: TestStore) {
    let owned = store.of("anna");
    let voice = made(&owned, cloned("Nora", recording("a.wav"))).await;
    owned.voice_learned("nora", voice.version + 1, Some("of another".to_owned())).await.unwrap();
    assert_eq!(owned.voice("nora").await.unwrap().status, VoiceStatus::Processing);
    owned.voice_learned("nora", voice.version, Some("too quiet".to_owned())).await.unwrap();
    let failed = owned.voice("nora").await.unwrap();
    assert_eq!((failed.status, failed.error.as_deref(), failed.version), (VoiceStatus::Failed, Some("too quiet"), 2));
    owned.voice_learned("nora", 2, None).await.unwrap();
    let ready = owned.voice("nora").await.unwrap();
    assert_eq!((ready.status, ready.error, ready.version), (VoiceStatus::Ready, None, 3));
    made(&owned, cloned("Left", recording("b.wav"))).await;
    Recordings::new(tempfile::tempdir().unwrap().path()).release(&store).await.unwrap();
    assert_eq!(owned.voice("left").await.unwrap().status, VoiceStatus::Ready);
}

async fn uploads_end_after_a_day_and_their_files_too(store: TestStore) {
    let folder = tempfile::tempdir().unwrap();
    let recordings = Recordings::new(folder.path());
    let owned = store.of("anna");
    let sent = recordings.upload(b"RIFF and so on", 5.0).unwrap();
    let upload =
        Upload { id: "u".to_owned(), recording: sent.clone(), transcript: String::new(), language: String::new() };
    owned.create_upload(&upload).await.unwrap();
    let adopted = recordings.adopt(&sent).unwrap();
    assert_ne!(adopted.file, sent.file);
    assert_eq!(adopted.content_hash, sent.content_hash);
    made(&owned, cloned("Nora", adopted.clone())).await;
    recordings.keep(&adopted.content_hash, "higgs-1", b"tokens");
    recordings.keep("0123", "higgs-1", b"of a voice that is gone");
    let unknown = recordings.adopt(&sent).unwrap();
    let fresh = recordings.adopt(&sent).unwrap();
    let path = |it: &StoredRecording| recordings.path(it).unwrap();
    let old = |path: &std::path::Path| {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - std::time::Duration::from_hours(48)).unwrap();
    };
    for entry in walk(folder.path()).iter().filter(|entry| !entry.ends_with(&fresh.file)) {
        old(entry);
    }
    // The upload is still known; what no row knows goes, but not while its row may be on the way.
    assert_eq!(recordings.sweep(&store).await.unwrap(), 2);
    assert!(!path(&unknown).exists() && path(&fresh).exists() && path(&adopted).exists());
    assert_eq!(recordings.kept(&adopted.content_hash, "higgs-1").as_deref(), Some(&b"tokens"[..]));
    assert_eq!(recordings.kept("0123", "higgs-1"), None);
    assert!(owned.upload("u").await.is_ok());
    store.sweep_voices("9999".to_owned()).await.unwrap();
    assert!(owned.upload("u").await.is_err());
    assert_eq!(recordings.sweep(&store).await.unwrap(), 1);
    assert!(recordings.adopt(&sent).is_err(), "its file is gone");
    recordings.remove(&adopted);
    assert!(!path(&adopted).exists());
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

async fn the_library_finds_by_id_then_by_name(store: TestStore) {
    let folder = tempfile::tempdir().unwrap();
    let library = VoiceLibrary::new(crate::store::Store::clone(&store), Recordings::new(folder.path()));
    let anna = store.of("anna");
    made(&anna, described("Nora")).await;
    made(&anna, NewVoice { speaker_description: "another".to_owned(), ..described("Nora") }).await;
    made(&anna, cloned("nora-2", recording("none.wav"))).await;
    let of = |owner: &str| Caller { owner: Some(owner.into()), ..Caller::default() };
    let find = async |owner: &str, name: &str| library.find(&of(owner), name).await.unwrap();
    assert_eq!(&*find("anna", "nora-2").await.unwrap().speaker, "another", "an id goes before a name");
    assert_eq!(&*find("anna", "Nora").await.unwrap().name, "nora");
    assert!(find("bob", "nora").await.is_none() && find("anna", "n\0ra").await.is_none());
    let cloned = find("anna", "nora-2-2").await.unwrap();
    let reference = cloned.reference.unwrap();
    assert_eq!((&*reference.key, reference.transcript.as_str()), ("ab", "Words."));
    // A row of a restored database may name any file: none but ours is opened.
    assert!(reference.recording.sound().is_err());
}

#[test]
fn files_have_names_of_our_own_only() {
    let folder = tempfile::tempdir().unwrap();
    let recordings = Recordings::new(&folder.path().join("data"));
    std::fs::write(folder.path().join("secret.wav"), "secret").unwrap();
    for file in ["../secret.wav", "../../secret.wav", "/etc/passwd", "", "a.wav", "%2e%2e/secret.wav", "a\0.wav"] {
        assert!(recordings.path(&recording(file)).is_err(), "{file}");
        assert!(recordings.adopt(&recording(file)).is_err(), "{file}");
    }
    for (hash, engine) in [("../../x", "higgs"), ("", "higgs"), ("..", "higgs"), ("a/b", "higgs")] {
        recordings.keep(hash, engine, b"x");
        assert_eq!(recordings.kept(hash, engine), None);
    }
    recordings.keep("ab", "../../../evil", b"x");
    assert_eq!(recordings.kept("ab", "../../../evil").as_deref(), Some(&b"x"[..]));
    let files = walk(folder.path());
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files.iter().all(|file| file.starts_with(folder.path())));
}
