use std::collections::HashSet;

use super::*;
use crate::session::record::Records;
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(
    the_first_admin_key_opens_what_was_there,
    a_new_owner_has_somebody_to_talk_to_and_sees_nobody_elses,
    a_key_opens_until_it_is_revoked_or_over,
    odd_names_and_days_are_refused,
    a_login_lasts_until_it_is_ended,
);

fn new(name: &str, scope: Scope) -> NewKey {
    NewKey { name: name.to_owned(), scope, owner: None, days: None }
}

#[test]
fn keys_are_random_and_show_typing_errors() {
    let secrets: HashSet<String> = (0..200).map(|_| random_secret().unwrap()).collect();
    assert_eq!(secrets.len(), 200);
    for letter in ALPHABET {
        assert!(secrets.iter().any(|secret| secret.contains(char::from(*letter))), "{}", char::from(*letter));
    }
    let secret = secrets.iter().next().unwrap();
    let key = format!("{PREFIX}{secret}{}", checksum(secret));
    assert!(is_well_formed(&key) && key.len() == 56, "{key}");
    for at in PREFIX.len()..key.len() {
        let wrong = if key.as_bytes()[at] == b'a' { "b" } else { "a" };
        let mut mistyped = key.clone();
        mistyped.replace_range(at..=at, wrong);
        assert!(!is_well_formed(&mistyped), "{key} {mistyped}");
    }
    let longer = format!("{key}a");
    for odd in ["", "aichat_", secret, &key[1..], &key[..key.len() - 1], &longer, &"é".repeat(28)] {
        assert!(!is_well_formed(odd), "{odd}");
    }
    assert_eq!(digest("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

async fn the_first_admin_key_opens_what_was_there(store: TestStore) {
    assert!(!store.has_keys().await.unwrap() && !store.has_admin_key().await.unwrap());
    let (guest, _) = store.create_key(new("guest", Scope::User)).await.unwrap();
    assert_eq!(guest.owner, guest.id, "an owner of its own");
    assert!(store.has_keys().await.unwrap() && !store.has_admin_key().await.unwrap());
    let (first, text) = store.create_key(new("first", Scope::Admin)).await.unwrap();
    assert_eq!((first.owner.as_str(), first.prefix.as_str()), (LOCAL_OWNER, &text[..11]));
    assert!(store.has_admin_key().await.unwrap());
    let (second, _) = store.create_key(new("second", Scope::Admin)).await.unwrap();
    assert_eq!(second.owner, second.id);
    store.revoke_key("first").await.unwrap();
    let (heir, _) = store.create_key(new("heir", Scope::Admin)).await.unwrap();
    assert_eq!(heir.owner, LOCAL_OWNER, "what was made without a key is never out of reach");
    let names: Vec<_> = store.keys().await.unwrap().into_iter().map(|key| key.name).collect();
    assert_eq!(names, ["guest", "first", "second", "heir"]);
}

async fn a_new_owner_has_somebody_to_talk_to_and_sees_nobody_elses(store: TestStore) {
    let ours = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap();
    let (key, _) = store.create_key(new("guest", Scope::User)).await.unwrap();
    let guest = store.of(&key.owner);
    let theirs = guest.create_conversation(vec![]).await.unwrap();
    assert_eq!(theirs.character_ids, ["mira-002"]);
    let original = store.of(LOCAL_OWNER).characters(vec!["mira-001".into()]).await.unwrap().remove(0);
    let copy = guest.characters(vec!["mira-002".into()]).await.unwrap().remove(0);
    assert_eq!((&copy.name, &copy.system_prompt), (&original.name, &original.system_prompt));
    assert_eq!(copy.description, original.description);
    guest.open_conversation(ours.id, 10).await.unwrap_err();
    guest.characters(vec!["mira-001".into()]).await.unwrap_err();
    let phone = NewKey { owner: Some(key.owner.clone()), ..new("phone", Scope::Read) };
    store.create_key(phone).await.unwrap();
    store.create_key(NewKey { owner: Some("family".into()), ..new("tablet", Scope::User) }).await.unwrap();
    guest.characters(vec!["mira-003".into()]).await.unwrap_err();
    let family = store.of("family").create_conversation(vec![]).await.unwrap();
    assert_eq!(family.character_ids, ["mira-003"], "one for each owner, not for each key");
}

async fn a_key_opens_until_it_is_revoked_or_over(store: TestStore) {
    let (made, text) = store.create_key(new("laptop", Scope::User)).await.unwrap();
    assert_eq!(store.living_key(&digest(&text)).await.unwrap().as_ref(), Some(&made));
    assert_eq!(store.living_key(&text).await.unwrap(), None, "the key itself is not kept");
    store.note_use(&made.id).await.unwrap();
    let used = store.living_key(&digest(&text)).await.unwrap().unwrap();
    assert!(used.last_used_at.unwrap() >= made.created_at);
    store.create_key(new("laptop", Scope::User)).await.unwrap_err();
    store.revoke_key("laptop").await.unwrap();
    assert_eq!(store.living_key(&digest(&text)).await.unwrap(), None);
    assert!(matches!(store.revoke_key("laptop").await, Err(KeyError::Unknown(name)) if name == "laptop"));
    assert!(!store.has_keys().await.unwrap());

    let (again, text) = store.create_key(NewKey { days: Some(1), ..new("laptop", Scope::Admin) }).await.unwrap();
    assert!(again.expires_at.as_ref().unwrap() > &row::now() && store.has_admin_key().await.unwrap());
    sqlx::query("UPDATE api_keys SET expires_at = $1 WHERE id = $2")
        .bind(row::now())
        .bind(again.id)
        .execute(&store.writer)
        .await
        .unwrap();
    assert_eq!(store.living_key(&digest(&text)).await.unwrap(), None);
    assert!(!store.has_admin_key().await.unwrap());
    assert!(store.has_keys().await.unwrap(), "a key that expires opens nothing");
}

async fn odd_names_and_days_are_refused(store: TestStore) {
    for name in ["", " x", "x ", "a\nb", "a\0b", &"x".repeat(65)] {
        assert!(matches!(store.create_key(new(name, Scope::User)).await, Err(KeyError::BadName)), "{name:?}");
        let owned = NewKey { owner: Some(name.to_owned()), ..new("fine", Scope::User) };
        assert!(matches!(store.create_key(owned).await, Err(KeyError::BadName)), "{name:?}");
    }
    for days in [0, MOST_DAYS + 1, u32::MAX] {
        let key = NewKey { days: Some(days), ..new("fine", Scope::User) };
        assert!(matches!(store.create_key(key).await, Err(KeyError::BadDays)), "{days}");
    }
    assert!(store.keys().await.unwrap().is_empty());
    store.create_key(new("Käthes Gerät; DROP TABLE api_keys;--", Scope::User)).await.unwrap();
}

async fn a_login_lasts_until_it_is_ended(store: TestStore) {
    let cookie = store.begin_login("the key's digest", 30).await.unwrap();
    let login = digest(&cookie);
    assert_eq!(store.login(&login).await.unwrap().as_deref(), Some("the key's digest"));
    assert_eq!(store.login(&cookie).await.unwrap(), None, "the cookie itself is not kept");
    let old = store.begin_login("another", 30).await.unwrap();
    sqlx::query("UPDATE logins SET expires_at = $1 WHERE digest = $2")
        .bind(row::now())
        .bind(digest(&old))
        .execute(&store.writer)
        .await
        .unwrap();
    assert_eq!(store.login(&digest(&old)).await.unwrap(), None);
    store.begin_login("a third", 30).await.unwrap();
    let kept: i64 =
        sqlx::query_scalar("SELECT /* every row */ COUNT(*) FROM logins").fetch_one(&store.readers).await.unwrap();
    assert_eq!(kept, 2, "what is over is forgotten");
    store.end_login(&login).await.unwrap();
    assert_eq!(store.login(&login).await.unwrap(), None);
}
