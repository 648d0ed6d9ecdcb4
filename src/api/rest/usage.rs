//! `/api/usage`: what requests took and cost, and how the budgets stand.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Extract};
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Iso8601;
use time::{Date, Duration, OffsetDateTime};
use tokio::time::sleep;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::House;
use crate::api::asker::Asker;
use crate::api::problem::{Problem, ProblemBody};
use crate::provider::account::Usd;
use crate::store::{BudgetReport, GroupBy, Scope, StoredLedger, UsageSum};

/// Days of the answer where none are asked for: a month.
const DAYS: i64 = 31;
/// Between two looks for what other servers of the same database have left under way.
const SWEEP_EVERY: std::time::Duration = std::time::Duration::from_hours(1);

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new().routes(routes!(usage))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// What to sum up by: `day` (the default), `model`, `provider`, `conversation` or `key`.
    #[param(value_type = Option<String>, pattern = "^(day|model|provider|conversation|key)$")]
    group_by: Option<GroupBy>,
    /// The first day, `2026-11-21`, in UTC.
    since: Option<String>,
    /// The last day.
    until: Option<String>,
}

/// What requests took and cost.
#[derive(Serialize, ToSchema)]
struct Report {
    group_by: &'static str,
    since: String,
    until: String,
    /// With an admin key everybody's, otherwise the asker's own.
    items: Vec<Sum>,
    /// Empty without an admin key.
    budgets: Vec<Budget>,
}

/// What the requests of one group took together.
#[derive(Serialize, ToSchema)]
struct Sum {
    /// The day, model, provider, conversation or key; null: requests of none.
    #[schema(required)]
    group: Option<String>,
    requests: i64,
    failed: i64,
    prompt_tokens: i64,
    cached_tokens: i64,
    completion_tokens: i64,
    characters: i64,
    audio_seconds: f64,
    device_seconds: f64,
    /// Mean time from a call to its first item.
    #[schema(required)]
    first_item_ms: Option<f64>,
    /// Mean time from a call to its end.
    #[schema(required)]
    total_ms: Option<f64>,
    #[schema(value_type = f64)]
    cost_usd: Usd,
}

/// One period's budget.
#[derive(Serialize, ToSchema)]
struct Budget {
    #[serde(rename = "budget")]
    #[schema(example = "daily")]
    name: &'static str,
    /// `2026-11-21` or `2026-11`, in UTC.
    period: String,
    /// Null: any amount.
    #[schema(required, value_type = Option<f64>)]
    limit_usd: Option<Usd>,
    #[schema(value_type = f64)]
    spent_usd: Usd,
    /// Set aside for requests under way.
    #[schema(value_type = f64)]
    reserved_usd: Usd,
    /// At least 80 % of the limit are spent or set aside.
    nearly_used_up: bool,
}

impl From<UsageSum> for Sum {
    fn from(sum: UsageSum) -> Self {
        Self {
            group: sum.group,
            requests: sum.requests,
            failed: sum.failed,
            prompt_tokens: sum.prompt_tokens,
            cached_tokens: sum.cached_tokens,
            completion_tokens: sum.completion_tokens,
            characters: sum.characters,
            audio_seconds: sum.audio_seconds,
            device_seconds: sum.device_seconds,
            first_item_ms: sum.first_item_ms,
            total_ms: sum.total_ms,
            cost_usd: sum.cost_usd,
        }
    }
}

impl From<BudgetReport> for Budget {
    fn from(report: BudgetReport) -> Self {
        let BudgetReport { budget, period, limit_usd, spent_usd, reserved_usd, nearly_used_up } = report;
        Self { name: budget, period, limit_usd, spent_usd, reserved_usd, nearly_used_up }
    }
}

/// What requests took and cost, and how the budgets stand
#[utoipa::path(
    get,
    path = "/usage",
    tag = "Models",
    params(Asked),
    responses(
        (status = 200, body = Report),
        (status = 400, body = ProblemBody, content_type = "application/problem+json"),
        (status = 401, body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn usage(
    Extract(house): Extract<Arc<House>>,
    asker: Asker,
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
    // What others spent is for whoever runs the server.
    let is_admin = asker.needs(Scope::Admin).is_ok();
    let owner = (!is_admin).then_some(&*asker.identity.owner);
    let items = ledger.sums(by, &since, &until, owner).await.map_err(failed)?;
    let budgets = if is_admin { ledger.budgets().await.map_err(failed)? } else { Vec::new() };
    let items = items.into_iter().map(Sum::from).collect();
    let budgets = budgets.into_iter().map(Budget::from).collect();
    Ok(Json(Report { group_by: by.as_str(), since, until, items, budgets }))
}

/// Settles what other servers of the same database have left under way, as long as the server runs.
pub(crate) async fn sweep_for_ever(ledger: StoredLedger) {
    loop {
        sleep(SWEEP_EVERY).await;
        ledger.recover(false).await;
    }
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
