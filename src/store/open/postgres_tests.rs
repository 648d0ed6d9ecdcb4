//! PostgreSQL's addresses and connections.

use super::without_password;
use crate::session::record::Records;
use crate::store::{LOCAL_OWNER, Store, StoreError, fixture};

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

#[tokio::test]
async fn connections_that_were_cut_are_made_again() {
    let store = fixture::postgres().await;
    for _ in 0..3 {
        // As a restart of the server does it.
        sqlx::query(
            "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .execute(&mut *store.writer.acquire().await.unwrap())
        .await
        .unwrap();
        let owned = store.of(LOCAL_OWNER);
        let all = (0..20).map(|_| owned.create_conversation(vec![]));
        for made in futures::future::join_all(all).await {
            made.unwrap();
        }
        assert!(store.is_ready().await);
    }
}

#[tokio::test]
async fn numbers_and_nothing_are_read_as_they_were_written() {
    let store = fixture::postgres().await;
    sqlx::raw_sql("CREATE TABLE odd (number DOUBLE PRECISION, whole BIGINT)").execute(&store.writer).await.unwrap();
    for (number, whole) in [(None, None), (Some(0.1), Some(i64::MIN)), (None, Some(7)), (Some(1e300), None)] {
        // The driver sends a missing f64 as a smaller type than one that is there: as text both are the same.
        sqlx::query("INSERT INTO odd (number, whole) VALUES (CAST($1 AS DOUBLE PRECISION), $2)")
            .bind(number.map(|number: f64| number.to_string()))
            .bind(whole)
            .execute(&mut *store.writer.acquire().await.unwrap())
            .await
            .unwrap();
        let back: (Option<f64>, Option<i64>) =
            sqlx::query_as("DELETE /* every row */ FROM odd RETURNING number, whole")
                .fetch_one(&store.writer)
                .await
                .unwrap();
        assert_eq!(back, (number, whole));
    }
}
