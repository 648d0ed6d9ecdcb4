//! What requests took and cost, and the budgets.
//!
//! A reservation and its sums change in one transaction, and only where every budget has room: however many ask at
//! once, no budget is exceeded. What a crash leaves under way counts as spent, since whoever was asked may charge it.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;
use sqlx::{Any, AssertSqlSafe, Row, Transaction};
use uuid::Uuid;

use super::{LOCAL_OWNER, Store, row};
use crate::provider::ProviderError;
use crate::provider::account::{Entry, Reservation, UsageLedger, Usd};

/// The most that may be spent. None: any amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    pub day: Option<Usd>,
    pub month: Option<Usd>,
}

/// A budget is nearly used up when so many percent of it are spent or set aside.
const NEARLY_PERCENT: i64 = 80;

/// One period's budget.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BudgetReport {
    /// `daily` or `monthly`.
    pub budget: &'static str,
    /// `2026-11-21` or `2026-11`, in UTC.
    pub period: String,
    pub limit_usd: Option<Usd>,
    pub spent_usd: Usd,
    /// Set aside for requests under way.
    pub reserved_usd: Usd,
    /// At least 80 % of the limit are spent or set aside.
    pub nearly_used_up: bool,
}

/// What requests are summed up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    Day,
    Model,
    Provider,
    Conversation,
    Key,
}

impl GroupBy {
    /// As a request names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Conversation => "conversation",
            Self::Key => "key",
        }
    }

    const fn column(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Conversation => "conversation_id",
            Self::Key => "key_name",
        }
    }
}

/// What the requests of one group took together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct UsageSum {
    /// The day, model, provider, conversation or key. None: requests of none.
    pub group: Option<String>,
    pub requests: i64,
    pub failed: i64,
    pub prompt_tokens: i64,
    pub cached_tokens: i64,
    pub completion_tokens: i64,
    pub characters: i64,
    pub audio_seconds: f64,
    pub device_seconds: f64,
    /// Mean time from a call to its first item.
    pub first_item_ms: Option<f64>,
    /// Mean time from a call to its end.
    pub total_ms: Option<f64>,
    pub cost_usd: Usd,
}

/// The ledger on a [`Store`], with its budgets.
#[derive(Clone)]
pub struct StoredLedger {
    store: Store,
    budgets: Budgets,
}

impl StoredLedger {
    pub fn new(store: Store, budgets: Budgets) -> Self {
        Self { store, budgets }
    }

    /// Settles what a crash left under way: of a server that has just started, before its first request, or of any.
    pub async fn recover(&self, has_just_started: bool) {
        match close_lost(&self.store, self.store.cut_off_before(has_just_started)).await {
            Ok(0) => {}
            Ok(lost) => tracing::warn!(lost, "paid requests were cut off; what was set aside for them counts as spent"),
            Err(error) => tracing::error!(%error, "requests that a crash cut off could not be settled"),
        }
    }

    /// Today's and this month's budgets.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn budgets(&self) -> Result<Vec<BudgetReport>, sqlx::Error> {
        let today = today();
        let mut reports = Vec::new();
        for (budget, period, limit) in self.periods(&today) {
            let found = sqlx::query("SELECT spent_nanousd, reserved_nanousd FROM spending WHERE period = $1")
                .bind(period.to_owned())
                .fetch_optional(&self.store.readers)
                .await?;
            let (spent, reserved) = match found {
                Some(found) => (found.try_get::<i64, _>(0)?, found.try_get::<i64, _>(1)?),
                None => (0, 0),
            };
            reports.push(BudgetReport {
                budget,
                period: period.to_owned(),
                limit_usd: limit,
                spent_usd: Usd::billionths(spent),
                reserved_usd: Usd::billionths(reserved),
                nearly_used_up: limit.is_some_and(|limit| is_nearly(spent.saturating_add(reserved), limit)),
            });
        }
        Ok(reports)
    }

    /// What was used from the day `since` to the day `until`, both included, by group, the dearest first: an owner's
    /// share of it, or everybody's.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn sums(
        &self,
        by: GroupBy,
        since: &str,
        until: &str,
        owner: Option<&str>,
    ) -> Result<Vec<UsageSum>, sqlx::Error> {
        let column = by.column();
        let order = if by == GroupBy::Day { "1" } else { "11 DESC, 2 DESC, 1" };
        let whose = if owner.is_some() { "owner = $3 AND " } else { "" };
        // PostgreSQL adds up in decimal numbers, which `Any` cannot read.
        let sum = |column| format!("CAST(SUM({column}) AS BIGINT)");
        let mean = |column| format!("CAST(AVG({column}) AS DOUBLE PRECISION)");
        let columns = [
            sum("CASE WHEN outcome = 'failed' THEN 1 ELSE 0 END"),
            sum("prompt_tokens"),
            sum("cached_tokens"),
            sum("completion_tokens"),
            sum("characters"),
            sum("audio_ms"),
            sum("device_ms"),
            mean("first_item_ms"),
            sum("cost_nanousd"),
            mean("total_ms"),
        ];
        // Nothing of a client's is in it.
        let query = format!(
            "SELECT {column}, COUNT(*), {} \
             FROM usage WHERE {whose}day >= $1 AND day <= $2 AND state <> 'reserved' GROUP BY {column} ORDER BY {order}",
            columns.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(query)).bind(since.to_owned()).bind(until.to_owned());
        if let Some(owner) = owner {
            query = query.bind(owner.to_owned());
        }
        let rows = query.fetch_all(&self.store.readers).await?;
        let read = |row: sqlx::any::AnyRow| {
            let milliseconds = |at| row.try_get::<i64, _>(at).map(|ms| ms as f64 / 1000.0);
            Ok(UsageSum {
                group: row.try_get(0)?,
                requests: row.try_get(1)?,
                failed: row.try_get(2)?,
                prompt_tokens: row.try_get(3)?,
                cached_tokens: row.try_get(4)?,
                completion_tokens: row.try_get(5)?,
                characters: row.try_get(6)?,
                audio_seconds: milliseconds(7)?,
                device_seconds: milliseconds(8)?,
                first_item_ms: row.try_get(9)?,
                cost_usd: Usd::billionths(row.try_get(10)?),
                total_ms: row.try_get(11)?,
            })
        };
        rows.into_iter().map(read).collect()
    }

    fn periods<'a>(&self, today: &'a str) -> [(&'static str, &'a str, Option<Usd>); 2] {
        [("daily", today, self.budgets.day), ("monthly", month_of(today), self.budgets.month)]
    }

    async fn set_aside(&self, most: Usd, entry: &Entry) -> Result<Result<Reservation, ProviderError>, sqlx::Error> {
        let today = today();
        let mut lock = self.store.write().await?;
        for (budget, period, limit) in self.periods(&today) {
            let limit_nanousd = limit.map_or(i64::MAX, Usd::as_billionths);
            sqlx::query("INSERT INTO spending (period) VALUES ($1) ON CONFLICT (period) DO NOTHING")
                .bind(period.to_owned())
                .execute(&mut *lock)
                .await?;
            // Written so that no sum can overflow.
            let changed = sqlx::query(
                "UPDATE spending SET reserved_nanousd = reserved_nanousd + $1 \
                 WHERE period = $2 AND spent_nanousd + reserved_nanousd <= CAST($3 AS BIGINT) - $1",
            )
            .bind(most.as_billionths())
            .bind(period.to_owned())
            .bind(limit_nanousd)
            .execute(&mut *lock)
            .await?;
            if changed.rows_affected() == 0 {
                lock.rollback().await?;
                let limit_usd = limit.unwrap_or_default().to_string();
                return Ok(Err(ProviderError::OverBudget { budget, limit_usd }));
            }
        }
        let id = Uuid::now_v7().to_string();
        insert(&mut lock, &id, &today, "reserved", most, entry).await?;
        lock.commit().await?;
        Ok(Ok(Reservation(id)))
    }

    async fn enter(&self, reservation: Option<Reservation>, entry: &Entry) -> Result<(), sqlx::Error> {
        let mut lock = self.store.write().await?;
        let Some(Reservation(id)) = reservation else {
            insert(&mut lock, &Uuid::now_v7().to_string(), &today(), "settled", Usd::ZERO, entry).await?;
            return lock.commit().await;
        };
        // One statement, so that of two that settle the same one only one finds it.
        let found =
            sqlx::query("DELETE FROM usage WHERE id = $1 AND state = 'reserved' RETURNING day, reserved_nanousd")
                .bind(id.clone())
                .fetch_optional(&mut *lock)
                .await?;
        let Some(found) = found else { return lock.rollback().await };
        let (day, reserved): (String, i64) = (found.try_get(0)?, found.try_get(1)?);
        insert(&mut lock, &id, &day, "settled", Usd::billionths(reserved), entry).await?;
        spend(&mut lock, &day, reserved, entry.cost.as_billionths()).await?;
        lock.commit().await?;
        self.warn(&day).await
    }

    /// Tells whoever reads the log that a budget is nearly used up.
    async fn warn(&self, day: &str) -> Result<(), sqlx::Error> {
        if self.budgets == Budgets::default() || day != today() {
            return Ok(());
        }
        for report in self.budgets().await?.into_iter().filter(|report| report.nearly_used_up) {
            self.store.warnings.send_if_modified(|warned| {
                let news = !warned.iter().any(|old| old.period == report.period);
                if news {
                    tracing::warn!(budget = report.budget, period = report.period, spent_usd = %report.spent_usd,
                        "a budget is nearly used up");
                    warned.retain(|old| old.budget != report.budget);
                    warned.push(report);
                }
                news
            });
        }
        Ok(())
    }
}

impl UsageLedger for StoredLedger {
    fn reserve(&self, most: Usd, of: Arc<Entry>) -> BoxFuture<'static, Result<Reservation, ProviderError>> {
        let ledger = self.clone();
        async move {
            ledger.set_aside(most, &of).await.unwrap_or_else(|error| {
                tracing::error!(%error, "a cost could not be set aside");
                // Nobody is paid whom the books do not know.
                Err(ProviderError::Failed { what: "the cost ledger".to_owned() })
            })
        }
        .boxed()
    }

    fn settle(&self, reservation: Option<Reservation>, entry: Entry) -> BoxFuture<'static, ()> {
        let ledger = self.clone();
        async move {
            if let Err(error) = ledger.enter(reservation, &entry).await {
                tracing::error!(%error, model = %entry.model, "a request could not be entered in the books");
            }
        }
        .boxed()
    }
}

async fn insert(
    lock: &mut Transaction<'_, Any>,
    id: &str,
    day: &str,
    state: &'static str,
    reserved: Usd,
    entry: &Entry,
) -> Result<(), sqlx::Error> {
    let used = &entry.used;
    let milliseconds = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let total_ms = milliseconds(used.total);
    let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
    let provider = if entry.remote { entry.model.split('/').next().unwrap_or_default() } else { "local" };
    sqlx::query(
        "INSERT INTO usage (id, state, day, created_at, capability, model, provider, conversation_id, key_name, \
         request_id, outcome, prompt_tokens, cached_tokens, completion_tokens, characters, audio_ms, first_item_ms, \
         total_ms, device_ms, reserved_nanousd, cost_nanousd, estimated, owner) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, \
         $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23)",
    )
    .bind(id.to_owned())
    .bind(state)
    .bind(day.to_owned())
    .bind(row::now())
    .bind(entry.capability.as_str())
    .bind(entry.model.to_string())
    .bind(provider.to_owned())
    .bind(text(&entry.caller.conversation_id))
    .bind(text(&entry.caller.key))
    .bind(text(&entry.caller.request_id))
    .bind(entry.outcome.as_str())
    .bind(count(used.prompt_tokens))
    .bind(count(used.cached_tokens))
    .bind(count(used.completion_tokens))
    .bind(count(used.characters))
    .bind(milliseconds(used.audio))
    .bind(used.first_item.map(milliseconds))
    .bind(total_ms)
    .bind(if entry.remote { 0 } else { total_ms })
    .bind(reserved.as_billionths())
    .bind(entry.cost.as_billionths())
    .bind(i64::from(entry.estimated))
    .bind(entry.caller.owner.as_deref().unwrap_or(LOCAL_OWNER).to_owned())
    .execute(&mut **lock)
    .await?;
    Ok(())
}

/// Moves what was set aside on a day to what was spent.
async fn spend(lock: &mut Transaction<'_, Any>, day: &str, reserved: i64, cost: i64) -> Result<(), sqlx::Error> {
    for period in [day, month_of(day)] {
        sqlx::query(
            "UPDATE spending SET reserved_nanousd = reserved_nanousd - $1, spent_nanousd = spent_nanousd + $2 \
             WHERE period = $3",
        )
        .bind(reserved)
        .bind(cost)
        .bind(period.to_owned())
        .execute(&mut **lock)
        .await?;
    }
    Ok(())
}

async fn close_lost(store: &Store, before: String) -> Result<usize, sqlx::Error> {
    let mut lock = store.write().await?;
    let lost = sqlx::query(
        "UPDATE usage SET state = 'lost', outcome = 'failed', cost_nanousd = reserved_nanousd, estimated = 1 \
         WHERE state = 'reserved' AND created_at <= $1 RETURNING day, reserved_nanousd",
    )
    .bind(before)
    .fetch_all(&mut *lock)
    .await?;
    for row in &lost {
        let (day, reserved): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        spend(&mut lock, &day, reserved, reserved).await?;
    }
    lock.commit().await?;
    Ok(lost.len())
}

/// The day in UTC, as `2026-11-21`.
fn today() -> String {
    let mut now = row::now();
    now.truncate("2026-11-21".len());
    now
}

fn month_of(day: &str) -> &str {
    day.get(.."2026-11".len()).unwrap_or(day)
}

fn is_nearly(used: i64, limit: Usd) -> bool {
    used >= limit.as_billionths() / 100 * NEARLY_PERCENT
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
