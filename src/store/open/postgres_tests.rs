//! PostgreSQL's addresses and connections.

use super::without_password;
use crate::store::{Store, StoreError, fixture};

#[test]
fn an_address_is_told_without_its_password() {
    let told = [
        ("postgres://u:secret@h:5432/d", "postgres://u@h:5432/d"),
        ("postgresql://u@h/d?sslmode=require&password=secret", "postgresql://u@h/d?…"),
        ("postgres://u:sec@ret@h/d", "postgres://u@h/d"),
        ("postgres:///d?host=/run", "postgres:///d?…"),
        ("postgres://h/d", "postgres://h/d"),
    ];
    for (address, expected) in told {
        assert_eq!(without_password(address), expected);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_refuses_is_named_without_the_password() {
    let store = fixture::postgres().await;
    let refused = store.url().replace("aichat:", "aichat:secret-and-");
    for address in ["postgres://u:secret@127.0.0.1:1/d", "postgres://u:secret@no-such-host.invalid/d", &refused] {
        let refusal = Store::open(address).await.unwrap_err();
        assert!(matches!(refusal, StoreError::Database { .. }), "{refusal}");
        let told = refusal.to_string();
        assert!(told.contains("postgres://") && !told.contains("secret"), "{told}");
    }
    let refusal = Store::open("postgres://u:secret@h:port/d").await.unwrap_err();
    assert!(matches!(refusal, StoreError::BadUrl { .. }), "{refusal}");
    assert!(!refusal.to_string().contains("secret"), "{refusal}");
}

#[tokio::test]
async fn connections_are_encrypted_as_the_address_says() {
    let store = fixture::postgres().await;
    for (mode, encrypted) in [("disable", 0_i64), ("prefer", 1), ("require", 1)] {
        let opened = Store::open(&format!("{}?sslmode={mode}", store.url())).await.unwrap();
        let found: i64 = sqlx::query_scalar(
            "SELECT CAST(CAST(ssl AS INTEGER) AS BIGINT) FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        )
        .fetch_one(&opened.readers)
        .await
        .unwrap();
        assert_eq!(found, encrypted, "{mode}");
    }
    // The server's certificate is signed by nobody.
    let refusal = Store::open(&format!("{}?sslmode=verify-full", store.url())).await.unwrap_err();
    assert!(refusal.to_string().contains("ertificate"), "{refusal}");
}
