//! `/api/usage`: what requests took and cost, and how the budgets stand.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Extract};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Iso8601;
use time::{Date, Duration, OffsetDateTime};

use crate::api::House;
use crate::api::problem::Problem;
use crate::store::{BudgetReport, GroupBy, UsageSum};

/// Days of the answer where none are asked for: a month.
const DAYS: i64 = 31;

pub(super) fn routes() -> Router<Arc<House>> {
    Router::new().route("/usage", get(usage))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    group_by: Option<GroupBy>,
    /// The first day, `2026-11-21`, in UTC.
    since: Option<String>,
    /// The last day.
    until: Option<String>,
}

#[derive(Serialize)]
struct Report {
    group_by: &'static str,
    since: String,
    until: String,
    items: Vec<UsageSum>,
    budgets: Vec<BudgetReport>,
}

async fn usage(
    Extract(house): Extract<Arc<House>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Report>, Problem> {
    let Query(asked) = asked.map_err(|error| Problem::bad_field("group_by", error.body_text()))?;
    let by = asked.group_by.unwrap_or(GroupBy::Day);
    let today = OffsetDateTime::now_utc().date();
    let until = day("until", asked.until)?.unwrap_or(today);
    let since = day("since", asked.since)?.unwrap_or_else(|| until.saturating_sub(Duration::days(DAYS - 1)));
    let (since, until) = (written(since), written(until));
    let ledger = &house.state.ledger;
    let failed = |error| {
        tracing::error!(%error, "usage could not be read");
        Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "database_failed", "the database does not answer")
    };
    let items = ledger.sums(by, &since, &until).await.map_err(failed)?;
    let budgets = ledger.budgets().await.map_err(failed)?;
    Ok(Json(Report { group_by: by.as_str(), since, until, items, budgets }))
}

fn day(field: &'static str, text: Option<String>) -> Result<Option<Date>, Problem> {
    let parse = |text: String| Date::parse(&text, &Iso8601::DATE);
    let wrong = |_| Problem::bad_field(field, "must be a day as 2026-11-21");
    text.map(parse).transpose().map_err(wrong)
}

/// ISO 8601, as the database has it.
fn written(day: Date) -> String {
    format!("{:04}-{:02}-{:02}", day.year(), u8::from(day.month()), day.day())
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
