use serde_json::json;

use super::*;
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(settings_are_saved_together_and_forgotten);

async fn settings_are_saved_together_and_forgotten(store: TestStore) {
    assert!(store.settings().await.unwrap().is_empty());
    let save = async |settings: &[(&str, Option<Value>)]| {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        store.save_settings(&settings).await
    };
    save(&[("temperature", Some(json!(0.25))), ("voice", Some(json!("bf_émma")))]).await.unwrap();
    save(&[("temperature", Some(json!(0.5))), ("voice", None), ("absent", None)]).await.unwrap();
    let saved = store.settings().await.unwrap();
    assert_eq!(saved, BTreeMap::from([("temperature".to_owned(), json!(0.5))]));
}
