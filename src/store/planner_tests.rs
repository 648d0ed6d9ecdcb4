//! Every query uses an index: whatever any test with a [`TestStore`](super::fixture::TestStore) ran is planned again at its end.
//!
//! sqlx tells each statement it runs; a scan of a whole table fails the test. A statement that has to see every row (a
//! backup, or a test's own count) says so with the comment [`EVERY_ROW`]. What a foreign key looks up by itself is not
//! told, so a test asks for an index of each.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor, Row};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{Registry, filter};

use super::fixture;

/// Marks a statement that has to see every row.
const EVERY_ROW: &str = "/* every row */";
/// Tables of a few rows.
const SMALL: &[&str] = &["_sqlx_migrations", "settings", "spending"];

/// PostgreSQL plans by the size of tables, and reads a small one whole: this makes all of them look large.
const LOOK_LARGE: &str = "
SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
SET session_replication_role = replica;
DO $$
DECLARE it record;
BEGIN
    FOR it IN SELECT conrelid::regclass AS place, conname FROM pg_constraint
        WHERE contype = 'c' AND connamespace = 'public'::regnamespace
    LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', it.place, it.conname); END LOOP;
    FOR it IN SELECT attrelid::regclass AS place, string_agg(quote_ident(attname), ', ') AS names,
            string_agg(CASE atttypid WHEN 'text'::regtype THEN quote_literal('~') ELSE '-1' END, ', ') AS fillings
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> '_sqlx_migrations'
            AND attnum > 0 AND NOT attisdropped AND attidentity = '' AND attgenerated = ''
        GROUP BY attrelid
    LOOP EXECUTE format('INSERT INTO %s (%s) VALUES (%s) ON CONFLICT DO NOTHING', it.place, it.names, it.fillings); END LOOP;
    UPDATE pg_class SET relpages = 1, reltuples = 100000 WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace;
    -- A new index is left alone while transactions run that are older than it, of other tests' databases too.
    UPDATE pg_index SET indcheckxmin = false WHERE indcheckxmin;
END $$;
";

static LISTENER: LazyLock<()> = LazyLock::new(|| {
    let only = filter::Targets::new().with_target("sqlx::query", Level::DEBUG);
    // Only where tests share a process can there be another: then it is this one.
    let _ = tracing::subscriber::set_global_default(Registry::default().with(Listener.with_filter(only)));
});
static ON_SQLITE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
static ON_POSTGRES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

struct Listener;

#[derive(Default)]
struct Told {
    summary: String,
    statement: String,
}

/// Begins to listen to sqlx.
pub(super) fn listen() {
    LazyLock::force(&LISTENER);
}

/// Plans what ran on SQLite, on a database that has the schema.
///
/// # Panics
/// Where a statement reads a whole table.
pub(super) async fn check_sqlite(url: &str) {
    let mut connection = AnyConnection::connect(url).await.unwrap();
    let tables = names(&mut connection, "SELECT name FROM sqlite_master WHERE type = 'table'").await;
    let partial =
        names(&mut connection, "SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'").await;
    let mut faults = Vec::new();
    for statement in ran(&ON_SQLITE) {
        let plan = explain(&mut connection, &format!("EXPLAIN QUERY PLAN {statement}")).await;
        for step in plan.iter().filter_map(|step| step.strip_prefix("SCAN ")) {
            let name = step.split(' ').next().unwrap_or_default();
            let table = table_of(name, &statement, &tables);
            let over_part = partial.iter().any(|index| step.ends_with(&format!(" INDEX {index}")));
            // A name that is no table's is that of a subquery, which has steps of its own.
            let is_whole = table.is_some_and(|table| !SMALL.contains(&table)) && !step.contains("VIRTUAL TABLE INDEX");
            if is_whole && !over_part {
                faults.push(format!("SCAN {step}, of\n{statement}"));
            }
        }
    }
    connection.close().await.unwrap();
    tell(&faults);
}

/// Plans what ran on PostgreSQL, likewise.
///
/// # Panics
/// Where a statement reads a whole table although there is no need to.
pub(super) async fn check_postgres(url: &str) {
    let mut connection = AnyConnection::connect(url).await.unwrap();
    connection.execute(sqlx::raw_sql(LOOK_LARGE)).await.unwrap();
    let partial = names(
        &mut connection,
        "SELECT CAST(relname AS TEXT) FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indpred IS NOT NULL",
    )
    .await;
    let mut faults = Vec::new();
    for statement in ran(&ON_POSTGRES) {
        connection
            .execute(sqlx::raw_sql(AssertSqlSafe(format!("PREPARE it AS {statement}"))))
            .await
            .unwrap_or_else(|error| panic!("{error}; where no column tells a type, CAST does: {statement}"));
        let plan = explain(&mut connection, &format!("EXPLAIN (COSTS OFF) EXECUTE it{}", nulls(&statement))).await;
        connection.execute(sqlx::raw_sql("DEALLOCATE it")).await.unwrap();
        for (at, step) in plan.iter().enumerate() {
            let step = step.trim_start().trim_start_matches("->").trim_start();
            let (is_whole, table) = if let Some((_, table)) = step.split_once("Seq Scan on ") {
                (true, table)
            } else if let Some((_, scan)) = step.split_once("Scan using ").or(step.split_once("Scan Backward using ")) {
                let (index, table) = scan.split_once(" on ").unwrap();
                let has_bounds = plan.get(at + 1).is_some_and(|next| next.trim_start().starts_with("Index Cond"));
                (!has_bounds && !partial.iter().any(|name| name == index), table)
            } else {
                continue;
            };
            if is_whole && !SMALL.contains(&table.split(' ').next().unwrap()) {
                faults.push(format!("{step}, of\n{statement}"));
            }
        }
    }
    connection.close().await.unwrap();
    tell(&faults);
}

/// What ran and can be planned.
fn ran(statements: &Mutex<BTreeSet<String>>) -> BTreeSet<String> {
    let verbs = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"];
    let mut all = std::mem::take(&mut *lock(statements));
    all.retain(|statement| {
        // The catalogs of the databases themselves are none of ours.
        let is_ours = !["pg_", "sqlite_", "_sqlx"].iter().any(|catalog| statement.contains(catalog));
        is_ours && !statement.contains(EVERY_ROW) && verbs.iter().any(|verb| statement.starts_with(verb))
    });
    all
}

async fn explain(connection: &mut AnyConnection, statement: &str) -> Vec<String> {
    let rows = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).fetch_all(connection).await;
    let rows = rows.unwrap_or_else(|error| panic!("{error}: {statement}"));
    let text = |row: &AnyRow| row.try_get("detail").or_else(|_| row.try_get(0)).unwrap();
    rows.iter().map(text).collect()
}

async fn names(connection: &mut AnyConnection, statement: &'static str) -> Vec<String> {
    sqlx::query_scalar(statement).fetch_all(connection).await.unwrap()
}

/// The table that a statement means by a name: itself, or what the name stands for.
fn table_of<'a>(name: &str, statement: &str, tables: &'a [String]) -> Option<&'a str> {
    let words: Vec<&str> =
        statement.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect();
    let stands_for = |table: &str| {
        words.windows(3).any(|it| it[0] == table && it[1].eq_ignore_ascii_case("as") && it[2] == name)
            || words.windows(2).any(|it| it[0] == table && it[1] == name)
    };
    tables.iter().map(String::as_str).find(|table| *table == name || stands_for(table))
}

/// As many NULLs as a statement has parameters.
fn nulls(statement: &str) -> String {
    let numbers = statement.split('$').skip(1).filter_map(|rest| {
        rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse::<usize>().ok())
    });
    match numbers.max() {
        Some(count) => format!("({})", vec!["NULL"; count].join(", ")),
        None => String::new(),
    }
}

fn tell(faults: &[String]) {
    assert!(
        faults.is_empty(),
        "whole tables are read: give each query an index, or say {EVERY_ROW} in it\n\n{}",
        faults.join("\n\n")
    );
}

fn lock(statements: &Mutex<BTreeSet<String>>) -> MutexGuard<'_, BTreeSet<String>> {
    statements.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut told = Told::default();
        event.record(&mut told);
        // A short statement is all summary.
        let statement = if told.statement.trim().is_empty() { told.summary } else { told.statement };
        let on_sqlite = std::thread::current().name().is_some_and(|name| name.starts_with("sqlx-sqlite-worker"));
        lock(if on_sqlite { &ON_SQLITE } else { &ON_POSTGRES }).insert(statement.trim().to_owned());
    }
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "summary" => self.summary.push_str(value),
            "db.statement" => self.statement.push_str(value),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "db.statement" {
            let _ = write!(self.statement, "{value:?}");
        }
    }
}

const WITHOUT: [&str; 4] = [
    "SELECT content FROM messages WHERE role = 'user'",
    "UPDATE characters SET is_active = 1 WHERE description = ''",
    "SELECT m.id FROM characters AS c JOIN messages AS m ON m.character_name = c.name WHERE c.id = 'x'",
    "SELECT id FROM conversations ORDER BY owner, updated_at, id",
];
const WITH: [&str; 4] = [
    "SELECT content FROM messages WHERE conversation_id = 'x' ORDER BY position DESC",
    "SELECT id FROM usage WHERE state = 'reserved'",
    "SELECT value FROM settings",
    "SELECT COUNT(*) /* every row */ FROM messages",
];

#[tokio::test]
async fn a_query_without_an_index_is_found_on_sqlite() {
    let store = fixture::sqlite().await;
    for statement in WITH {
        store.execute(statement).await;
    }
    check_sqlite(store.url()).await;
    for statement in WITHOUT {
        store.execute(statement).await;
        let url = store.url().to_owned();
        let found = tokio::spawn(async move { check_sqlite(&url).await }).await.unwrap_err().into_panic();
        assert!(found.downcast_ref::<String>().unwrap().contains(statement), "{statement}");
    }
}

#[tokio::test]
async fn a_query_without_an_index_is_found_on_postgres() {
    let store = fixture::postgres().await;
    for statement in WITH {
        store.execute(statement).await;
    }
    check_postgres(store.url()).await;
    for statement in WITHOUT {
        store.execute(statement).await;
        let url = store.url().to_owned();
        let found = tokio::spawn(async move { check_postgres(&url).await }).await.unwrap_err().into_panic();
        assert!(found.downcast_ref::<String>().unwrap().contains(statement), "{statement}");
    }
}

#[tokio::test]
async fn every_foreign_key_has_an_index() {
    let store = fixture::postgres().await;
    let (keys, without): (i64, i64) = sqlx::query_as(
        "SELECT COUNT(*), COUNT(*) FILTER (WHERE NOT EXISTS (
             SELECT 1 FROM pg_index WHERE indrelid = conrelid AND indpred IS NULL AND indkey[0] = conkey[1]))
         FROM pg_constraint WHERE contype = 'f'",
    )
    .fetch_one(&store.readers)
    .await
    .unwrap();
    assert!(keys >= 3 && without == 0, "{without} of {keys} foreign keys have no index");
}
