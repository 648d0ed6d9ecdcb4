use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read, Write};

use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::*;
use crate::session::record::Records;
use crate::store::LOCAL_OWNER;
use crate::store::fixture::{self, TestStore, on_both_databases};

on_both_databases!(
    a_backup_is_restored_into_either_database,
    what_is_there_is_replaced_only_when_said,
    a_backup_is_one_moment_of_a_server_at_work,
    what_is_no_whole_backup_changes_nothing,
);

/// A row of every table, with what is hard to keep.
const ROWS: [&str; 15] = [
    "INSERT INTO characters (id, name, voice, talkativeness, parameters, created_at, updated_at, owner)
     VALUES ('zoe-001', 'Zoë \"Ω\" 👋🏽', 'af_heart', 0.1, '{\"temperature\":0.7}', '2026-01-01', '2026-01-01', 'ann')",
    "INSERT INTO character_numbers (slug, last) VALUES ('zoe', 7)",
    "INSERT INTO conversations (id, title, private, created_at, updated_at, owner, message_count, last_message_at)
     VALUES ('c1', 'Ти''тло\n\ttab', 1, '2026', '2026', 'ann', 2, '2026'), ('c2', '', 0, '2026', '2026', 'local', 0, NULL)",
    "INSERT INTO conversation_characters (conversation_id, character_id, position)
     VALUES ('c1', 'zoe-001', 0), ('c1', 'mira-001', 1)",
    "INSERT INTO messages (id, conversation_id, position, role, content, status, heard_chars, created_at, updated_at, owner)
     VALUES ('m1', 'c1', 1, 'user', 'line\r\nline \u{2028} \\ ''; DROP TABLE messages;--', 'completed', NULL, '2026', '2026', 'ann'),
            ('m2', 'c1', 2, 'assistant', '', 'failed', 9007199254740993, '2026', '2026', 'ann')",
    "INSERT INTO usage (id, state, day, created_at, capability, model, provider, cost_nanousd)
     VALUES ('u1', 'settled', '2026-11-21', '2026', 'chat', 'x', 'local', 9223372036854775807)",
    "INSERT INTO spending (period, spent_nanousd) VALUES ('2026-11', 5)",
    "INSERT INTO api_keys (id, name, owner, scope, digest, prefix, created_at)
     VALUES ('k1', 'laptop', 'ann', 'user', 'd1', 'ak_1', '2026')",
    "INSERT INTO logins (digest, key_digest, created_at, expires_at) VALUES ('l1', 'd1', '2026', '2027')",
    "INSERT INTO settings (name, value, updated_at) VALUES ('voice', '\"af_heart\"', '2026')",
    "INSERT INTO idempotent_requests (owner, key, digest, status, body, created_at)
     VALUES ('ann', 'k', 'd', 201, '{}', '2026'), ('bob', 'k', 'd', NULL, '', '2026')",
    "INSERT INTO voices (owner, id, name, method, engine, seconds, file, status, created_at, updated_at)
     VALUES ('ann', 'v', 'V', 'description', 'higgs', NULL, NULL, 'ready', '2026', '2026'),
            ('ann', 'w', 'W', 'clone', 'higgs', 3.3000000000000003, 'w.wav', 'ready', '2026', '2026')",
    "INSERT INTO uploads (id, owner, file, content_hash, seconds, created_at) VALUES ('p1', 'ann', 'p.wav', 'h', 1e-3, '2026')",
    "INSERT INTO sessions (id, owner, conversation_id, secret_digest, updated_at) VALUES ('s1', 'ann', 'c1', 'd2', '2026')",
    "INSERT INTO session_pages (session_id, first_seq, last_seq, messages) VALUES ('s1', 1, 9007199254740993, '[{}]')",
];

async fn fill(store: &TestStore, data_dir: &Path) {
    for row in ROWS {
        store.execute(row).await;
    }
    for (name, content) in [("voices/w.wav", "RIFF"), ("images/deep/er/a.png", ""), ("recordings/r.ogg", "Ogg\0")] {
        let path = data_dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::write(data_dir.join("not-ours.txt"), "stays").unwrap();
}

/// All rows, by table.
async fn rows(store: &Store) -> BTreeMap<&'static str, String> {
    let mut snapshot = store.snapshot().await.unwrap();
    let mut all = BTreeMap::new();
    for table in tables() {
        let mut out = Vec::new();
        snapshot.write_table(table, &mut out).await.unwrap();
        all.insert(table, String::from_utf8(out).unwrap());
    }
    all
}

/// All files below a folder that a backup holds.
fn files(data_dir: &Path) -> Vec<(String, Vec<u8>)> {
    let all = FOLDERS.iter().flat_map(|folder| files_below(&data_dir.join(folder), folder).unwrap());
    all.map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

async fn a_backup_is_restored_into_either_database(source: TestStore) {
    let (from, file) = (TempDir::new().unwrap(), TempDir::new().unwrap().path().with_extension("zip"));
    fill(&source, from.path()).await;
    let made = backup(&source, from.path(), &file).await.unwrap();
    assert_eq!((made.database.as_str(), made.files), (source.kind(), 3));
    assert!(tables().all(|table| made.rows[table] > 0), "{:?}", made.rows);
    for target in [fixture::sqlite().await, fixture::postgres().await] {
        let to = TempDir::new().unwrap();
        let restored = restore(&target, &to.path().join("new"), &file, false).await.unwrap();
        assert_eq!(restored, made);
        assert_eq!(rows(&target).await, rows(&source).await);
        assert_eq!(files(&to.path().join("new")), files(from.path()));
        // What the schema keeps beside the rows is kept too: the next message gets its place.
        let opened = target.of("ann").open_conversation("c1".into(), 10).await.unwrap();
        assert_eq!(opened.messages.len(), 2);
    }
    fs::remove_file(file).unwrap();
}

async fn what_is_there_is_replaced_only_when_said(target: TestStore) {
    let (source, folder) = (fixture::sqlite().await, TempDir::new().unwrap());
    let (from, to, file) = (folder.path().join("from"), folder.path().join("to"), folder.path().join("b.zip"));
    fill(&source, &from).await;
    backup(&source, &from, &file).await.unwrap();
    target.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap();
    fs::create_dir_all(to.join("voices")).unwrap();
    fs::write(to.join("voices/old.wav"), "old").unwrap();
    let before = rows(&target).await;
    let refusal = restore(&target, &to, &file, false).await.unwrap_err();
    assert!(format!("{refusal:#}").contains("--replace"), "{refusal:#}");
    assert_eq!((rows(&target).await, files(&to)), (before, vec![("voices/old.wav".into(), b"old".to_vec())]));
    for _ in 0..2 {
        restore(&target, &to, &file, true).await.unwrap();
        assert_eq!((rows(&target).await, files(&to)), (rows(&source).await, files(&from)));
    }
}

async fn a_backup_is_one_moment_of_a_server_at_work(source: TestStore) {
    let folder = TempDir::new().unwrap();
    let owned = source.of(LOCAL_OWNER);
    let writing = tokio::spawn(async move {
        for number in 0.. {
            let conversation = owned.create_conversation(vec![]).await.unwrap().id;
            let message = crate::store::fixture::message(&format!("m{number}"), &conversation, "said");
            owned.save_message(message).await.unwrap();
        }
    });
    for round in 0..5 {
        let file = folder.path().join(format!("{round}.zip"));
        backup(&source, folder.path(), &file).await.unwrap();
        let target = fixture::sqlite().await;
        restore(&target, &folder.path().join("to"), &file, false).await.unwrap();
        let rows = rows(&target).await;
        let counted = rows["conversations"].matches("\"message_count\":1,").count();
        assert_eq!(counted, rows["messages"].lines().count());
    }
    writing.abort();
}

/// A backup with an entry more, or other than it was.
fn altered(file: &Path, change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>, more: &[(&str, &str)]) -> Vec<u8> {
    let mut from = ZipArchive::new(File::open(file).unwrap()).unwrap();
    let mut to = ZipWriter::new(Cursor::new(Vec::new()));
    for at in 0..from.len() {
        let mut entry = from.by_index(at).unwrap();
        let (name, mut content) = (entry.name().unwrap().into_owned(), Vec::new());
        entry.read_to_end(&mut content).unwrap();
        if let Some(content) = change(&name, content) {
            to.start_file(name, SimpleFileOptions::default()).unwrap();
            to.write_all(&content).unwrap();
        }
    }
    for (name, content) in more {
        to.start_file(*name, SimpleFileOptions::default()).unwrap();
        to.write_all(content.as_bytes()).unwrap();
    }
    to.finish().unwrap().into_inner()
}

fn with_text(file: &Path, name: &str, from: &str, to: &str) -> Vec<u8> {
    altered(
        file,
        |found, content| {
            let text = String::from_utf8_lossy(&content).into_owned();
            assert!(found != name || text.contains(from), "{from} is not in {text}");
            Some(if found == name { text.replacen(from, to, 1).into_bytes() } else { content })
        },
        &[],
    )
}

async fn what_is_no_whole_backup_changes_nothing(target: TestStore) {
    let (source, folder) = (fixture::sqlite().await, TempDir::new().unwrap());
    let (from, to, file) = (folder.path().join("from"), folder.path().join("a/b/to"), folder.path().join("b.zip"));
    fill(&source, &from).await;
    backup(&source, &from, &file).await.unwrap();
    let whole = fs::read(&file).unwrap();
    let mut wrong: Vec<(String, Vec<u8>)> = Vec::new();
    for name in [
        "../evil",
        "/evil",
        "files/../evil",
        "files/voices/../../../evil",
        "files/voices/..",
        "files/voices/",
        "files/voices",
        "files/voices//evil",
        "files/voices/..\\evil",
        "files/C:/evil",
        "files/other/evil",
        "tables/_sqlx_migrations.jsonl",
        "tables/../voices.jsonl",
        "evil",
    ] {
        wrong.push((name.into(), altered(&file, |_, content| Some(content), &[(name, "evil")])));
    }
    let mut linked = ZipWriter::new_append(Cursor::new(whole.clone())).unwrap();
    linked.add_symlink("files/voices/link", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    wrong.push(("a link".into(), linked.finish().unwrap().into_inner()));
    for length in [0, 10, whole.len() / 2, whole.len() - 1] {
        wrong.push((format!("cut at {length}"), whole[..length].to_vec()));
    }
    wrong.push(("no zip".into(), b"a letter".repeat(1000)));
    for name in ["backup.json", "tables/messages.jsonl", "files/voices/w.wav"] {
        wrong.push((format!("without {name}"), altered(&file, |found, it| (found != name).then_some(it), &[])));
    }
    let texts = [
        ("backup.json", "\"schema\": ", "\"schema\": 9"),
        ("backup.json", "\"format\": ", "\"format\": 9"),
        ("backup.json", "\"messages\": ", "\"messages\": 1"),
        ("backup.json", "{", "["),
        ("tables/messages.jsonl", "\"role\":\"user\"", "\"role\":\"evil\""),
        ("tables/messages.jsonl", "\"role\":\"user\"", "\"role\":7"),
        ("tables/messages.jsonl", "\"position\":1", "\"position\":1.5"),
        ("tables/messages.jsonl", "\"position\":1", "\"position) VALUES (1);--\":1"),
        ("tables/messages.jsonl", "\"conversation_id\":\"c1\"", "\"conversation_id\":\"c9\""),
        ("tables/messages.jsonl", "\"id\":\"m2\"", "\"id\":\"m1\""),
        ("tables/uploads.jsonl", "}", ""),
        ("tables/uploads.jsonl", "{", "[{"),
    ];
    for (name, old, new) in texts {
        wrong.push((format!("{name}: {new}"), with_text(&file, name, old, new)));
    }
    // A byte of what is stored: only a checksum tells.
    let mut damaged = whole.clone();
    let at = damaged.windows(4).position(|window| window == b"RIFF").unwrap_or(200);
    damaged[at] ^= 0x40;
    wrong.push(("a changed byte".into(), damaged));

    let before = rows(&target).await;
    for (what, bytes) in wrong {
        fs::write(&file, bytes).unwrap();
        let refusal = restore(&target, &to, &file, false).await.err();
        let told = format!("{:#}", refusal.unwrap_or_else(|| panic!("{what} was restored")));
        assert!(!told.contains('\n') && told.len() < 400, "{what}: {told}");
        assert_eq!(rows(&target).await, before, "{what}");
        assert!(files(&to).is_empty(), "{what}");
        let left: Vec<_> = fs::read_dir(&to).into_iter().flatten().map(|it| it.unwrap().path()).collect();
        assert!(left.is_empty(), "{what}: {left:?}");
        for above in [folder.path(), &folder.path().join("a"), &folder.path().join("a/b")] {
            assert!(!above.join("evil").exists(), "{what}");
        }
    }
    fs::write(&file, whole).unwrap();
    restore(&target, &to, &file, false).await.unwrap();
    assert_eq!(rows(&target).await, rows(&source).await);
}
