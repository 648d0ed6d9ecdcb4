//! Every row of every table, out of one database and into another, of whichever kind.
//!
//! A row is a JSON object by column names. [`Snapshot`] reads one moment's state while others write; [`Restoration`] writes all
//! or nothing. What a file of it all looks like is for whoever calls.

use std::io::{self, Write};

use futures::TryStreamExt;
use serde_json::{Map, Value};
use sqlx::any::AnyRow;
use sqlx::{Any, AssertSqlSafe, Row, Transaction, ValueRef};

use super::{Kind, Store, open, row};

/// The tables, each after those that it refers to, and how its rows are sorted.
const TABLES: [(&str, &str); 15] = [
    ("characters", "id"),
    ("character_numbers", "slug"),
    ("conversations", "id"),
    ("conversation_characters", "conversation_id, position"),
    ("messages", "number"),
    ("usage", "id"),
    ("spending", "period"),
    ("api_keys", "id"),
    ("logins", "digest"),
    ("settings", "name"),
    ("idempotent_requests", "owner, key"),
    ("voices", "owner, id"),
    ("uploads", "id"),
    ("sessions", "id"),
    ("session_pages", "session_id, first_seq"),
];
/// What a database counts by itself, as rows are made: not kept, but rows keep their order.
const OWN_NUMBERS: [(&str, &str); 2] = [("messages", "number"), ("conversations", "number")];

/// Rows that come with the schema: a database that has no others is empty.
const BUILT_IN: [(&str, &str); 2] = [
    ("characters", "id = 'mira-001' AND owner = 'local' AND version = 1"),
    ("character_numbers", "slug = 'mira' AND last = 1"),
];

/// Why rows cannot be read or written. Each message names its cause itself, so none has a `source`.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("the database failed: {0}")]
    Database(String),
    #[error("the database's disk is full")]
    Full,
    #[error(
        "the database is not empty: it has rows in {table}; restore into an empty one, or say --replace to lose what it has"
    )]
    NotEmpty { table: &'static str },
    #[error("row {row} of {table} cannot be restored: {reason}")]
    BadRow { table: &'static str, row: u64, reason: String },
    #[error("the rows of {table} cannot be passed on: {cause}")]
    Stream { table: &'static str, cause: io::Error },
}

/// One moment's state of a whole database.
pub struct Snapshot {
    moment: Transaction<'static, Any>,
    kind: Kind,
    /// RFC 3339, in UTC.
    pub taken_at: String,
}

/// A database that is being filled: dropped before [`Restoration::commit`], it is as it was before.
pub struct Restoration {
    lock: Transaction<'static, Any>,
    kind: Kind,
}

struct Column {
    name: String,
    class: Class,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Text,
    Whole,
    Fraction,
}

/// The number of this program's schema.
pub fn schema() -> i64 {
    open::NEWEST
}

/// The tables, each after those that it refers to.
pub fn tables() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(|(name, _)| *name)
}

impl Store {
    /// Begins to read one moment's state.
    ///
    /// # Errors
    /// [`BackupError::Database`].
    pub async fn snapshot(&self) -> Result<Snapshot, BackupError> {
        let mut moment = self.read().await?;
        without_deadline(&mut moment, self.kind).await?;
        Ok(Snapshot { moment, kind: self.kind, taken_at: row::now() })
    }

    /// Begins to fill the database.
    ///
    /// # Errors
    /// [`BackupError::NotEmpty`], unless `replace` says that what it holds may go.
    pub async fn restoration(&self, replace: bool) -> Result<Restoration, BackupError> {
        let mut lock = self.write().await?;
        without_deadline(&mut lock, self.kind).await?;
        if !replace {
            for (table, _) in TABLES {
                if has_own_rows(&mut lock, table).await? {
                    return Err(BackupError::NotEmpty { table });
                }
            }
        }
        for (table, _) in TABLES.iter().rev() {
            sqlx::query(AssertSqlSafe(format!("DELETE /* every row */ FROM {table}"))).execute(&mut *lock).await?;
        }
        Ok(Restoration { lock, kind: self.kind })
    }
}

impl Snapshot {
    /// Writes a table's rows, a line each, and says how many there are.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn write_table(&mut self, table: &'static str, out: &mut dyn Write) -> Result<u64, BackupError> {
        let mut columns = columns(&mut self.moment, self.kind, table).await?;
        let sorted = TABLES.iter().find(|(name, _)| *name == table).map_or("1", |(_, order)| *order);
        columns.retain(|column| !OWN_NUMBERS.contains(&(table, column.name.as_str())));
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let query = format!("SELECT {} /* every row */ FROM {table} ORDER BY {sorted}", names.join(", "));
        let mut rows = sqlx::query(AssertSqlSafe(query)).fetch(&mut *self.moment);
        let mut count = 0;
        while let Some(row) = rows.try_next().await? {
            let mut line = object(&row, &columns)?.to_string();
            line.push('\n');
            out.write_all(line.as_bytes()).map_err(|cause| BackupError::Stream { table, cause })?;
            count += 1;
        }
        Ok(count)
    }
}

impl Restoration {
    /// Writes a table's rows, and says how many there were. A column that a row does not name gets its default.
    ///
    /// # Errors
    /// [`BackupError`]; nothing but dropping the whole is left then.
    pub async fn read_table(
        &mut self,
        table: &'static str,
        lines: impl Iterator<Item = io::Result<String>>,
    ) -> Result<u64, BackupError> {
        let mut columns = columns(&mut self.lock, self.kind, table).await?;
        columns.retain(|column| !OWN_NUMBERS.contains(&(table, column.name.as_str())));
        let mut count = 0;
        for line in lines {
            count += 1;
            let bad = |reason: String| BackupError::BadRow { table, row: count, reason };
            let line = line.map_err(|cause| BackupError::Stream { table, cause })?;
            let object: Map<String, Value> = serde_json::from_str(&line).map_err(|error| bad(error.to_string()))?;
            self.insert(table, &columns, object).await.map_err(|error| match error {
                Refusal::Row(reason) => bad(reason),
                Refusal::Database(sqlx::Error::Database(error)) if !open::is_full(&*error) => {
                    bad(error.message().to_owned())
                }
                Refusal::Database(error) => error.into(),
            })?;
        }
        Ok(count)
    }

    /// Makes it all lasting.
    ///
    /// # Errors
    /// [`BackupError::Database`] or [`BackupError::Full`], and nothing has changed.
    pub async fn commit(self) -> Result<(), BackupError> {
        Ok(self.lock.commit().await?)
    }

    async fn insert(&mut self, table: &str, columns: &[Column], mut row: Map<String, Value>) -> Result<(), Refusal> {
        let named: Vec<&Column> = columns.iter().filter(|column| row.contains_key(&column.name)).collect();
        if let Some(unknown) = row.keys().find(|name| !named.iter().any(|column| column.name == **name)) {
            return Err(Refusal::Row(format!("there is no column {unknown:?}")));
        }
        let names: Vec<&str> = named.iter().map(|column| column.name.as_str()).collect();
        let places: Vec<String> = (1..).zip(&named).map(|(number, column)| column.class.place(number)).collect();
        // Only names of columns that the database itself told.
        let statement = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), places.join(", "));
        let mut query = sqlx::query(AssertSqlSafe(statement));
        for column in named {
            let value = row.remove(&column.name).unwrap_or_default();
            let wrong = || Refusal::Row(format!("{} is {value}", column.name));
            query = match (&value, column.class) {
                (Value::Null, Class::Whole) => query.bind(None::<i64>),
                (Value::Null, _) => query.bind(None::<String>),
                (Value::String(text), Class::Text) => query.bind(text.clone()),
                (Value::Number(number), Class::Whole) => query.bind(number.as_i64().ok_or_else(wrong)?),
                (Value::Number(number), Class::Fraction) => query.bind(number.to_string()),
                _ => return Err(wrong()),
            };
        }
        query.execute(&mut *self.lock).await.map_err(Refusal::Database)?;
        Ok(())
    }
}

enum Refusal {
    Row(String),
    Database(sqlx::Error),
}

impl Class {
    /// A parameter. A number with a fraction is bound as text: the driver sends a missing one as a smaller type than one
    /// that is there, which PostgreSQL refuses in the same statement.
    fn place(self, number: usize) -> String {
        match self {
            Self::Fraction => format!("CAST(${number} AS DOUBLE PRECISION)"),
            Self::Text | Self::Whole => format!("${number}"),
        }
    }
}

/// Reading a large table takes longer than any other query may.
async fn without_deadline(moment: &mut Transaction<'static, Any>, kind: Kind) -> Result<(), sqlx::Error> {
    if kind == Kind::Postgres {
        sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut **moment).await?;
    }
    Ok(())
}

async fn has_own_rows(lock: &mut Transaction<'static, Any>, table: &str) -> Result<bool, sqlx::Error> {
    let built_in = BUILT_IN.iter().find(|(name, _)| *name == table).map_or("1 = 0", |(_, which)| *which);
    let query = format!("SELECT 1 /* every row */ FROM {table} WHERE NOT ({built_in}) LIMIT 1");
    Ok(sqlx::query(AssertSqlSafe(query)).fetch_optional(&mut **lock).await?.is_some())
}

/// The columns as the database itself tells them.
async fn columns(
    moment: &mut Transaction<'static, Any>,
    kind: Kind,
    table: &'static str,
) -> Result<Vec<Column>, sqlx::Error> {
    let query = match kind {
        Kind::Sqlite => "SELECT name, type FROM pragma_table_info($1) ORDER BY name",
        Kind::Postgres => {
            "SELECT CAST(column_name AS TEXT), CAST(data_type AS TEXT) FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name = $1 ORDER BY CAST(column_name AS TEXT)"
        }
    };
    let told: Vec<(String, String)> = sqlx::query_as(query).bind(table).fetch_all(&mut **moment).await?;
    let columns = told.into_iter().map(|(name, of)| {
        let class = match of.as_str() {
            "INTEGER" | "bigint" => Class::Whole,
            "REAL" | "double precision" => Class::Fraction,
            _ => Class::Text,
        };
        Column { name, class }
    });
    Ok(columns.collect())
}

fn object(row: &AnyRow, columns: &[Column]) -> Result<Value, sqlx::Error> {
    let mut object = Map::new();
    for (at, column) in columns.iter().enumerate() {
        let value = if row.try_get_raw(at)?.is_null() {
            Value::Null
        } else {
            match column.class {
                Class::Text => row.try_get::<String, _>(at)?.into(),
                Class::Whole => row.try_get::<i64, _>(at)?.into(),
                Class::Fraction => row.try_get::<f64, _>(at)?.into(),
            }
        };
        object.insert(column.name.clone(), value);
    }
    Ok(object.into())
}

impl From<sqlx::Error> for BackupError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(cause) if open::is_full(&**cause) => Self::Full,
            _ => Self::Database(error.to_string()),
        }
    }
}

#[cfg(test)]
#[path = "backup_tests.rs"]
mod tests;
