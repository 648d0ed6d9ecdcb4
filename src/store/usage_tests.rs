use std::time::Duration;

use super::*;
use crate::provider::account::{Outcome, Used};
use crate::provider::{Caller, Capability};
use crate::store::fixture::{TestStore, on_both_databases};
use crate::store::{Kind, LONGEST_WORK};
use futures::future::join_all;

on_both_databases!(
    a_thousand_at_once_never_exceed_a_budget,
    a_reservation_settles_once,
    what_a_crash_cut_off_counts_as_spent,
    what_another_server_left_behind_is_settled_by_one_that_runs,
    a_budget_that_is_nearly_used_up_is_told_once,
    sums_are_by_group_and_leave_out_what_is_under_way,
);

fn ledger(store: &TestStore, budgets: Budgets) -> StoredLedger {
    StoredLedger::new(Store::clone(store), budgets)
}

fn entry(model: &str, cost: Usd) -> Entry {
    Entry {
        capability: Capability::Chat,
        model: model.into(),
        remote: model.contains('/'),
        caller: Caller { conversation_id: Some("c".into()), ..Caller::default() },
        used: Used { prompt_tokens: 7, total: Duration::from_millis(500), ..Used::default() },
        cost,
        estimated: false,
        outcome: Outcome::Completed,
    }
}

fn cents(cents: i64) -> Usd {
    Usd::billionths(cents * 10_000_000)
}

async fn spent(ledger: &StoredLedger) -> [(Usd, Usd); 2] {
    let reports = ledger.budgets().await.unwrap();
    [0, 1].map(|at| (reports[at].spent_usd, reports[at].reserved_usd))
}

async fn a_thousand_at_once_never_exceed_a_budget(store: TestStore) {
    let ledger = ledger(&store, Budgets { day: Some(cents(100)), month: Some(cents(500)) });
    let one = |number: i64| {
        let ledger = ledger.clone();
        async move {
            let reservation = ledger.reserve(cents(3), Arc::new(entry("openai/x", Usd::ZERO))).await.ok()?;
            // Some cost less than was set aside, some nothing.
            ledger.settle(Some(reservation), entry("openai/x", cents(number % 4))).await;
            Some(number % 4)
        }
    };
    let served: Vec<i64> = join_all((0..1000).map(one)).await.into_iter().flatten().collect();
    let total = served.iter().sum::<i64>();
    // The first 33 take all there is before any of them is settled.
    assert!(total <= 100 && served.len() >= 33, "{total} cents in {} requests", served.len());
    assert_eq!(spent(&ledger).await, [(cents(total), Usd::ZERO); 2]);
    let error = ledger.reserve(cents(101), Arc::new(entry("openai/x", Usd::ZERO))).await.unwrap_err();
    assert_eq!(error, ProviderError::OverBudget { budget: "daily", limit_usd: "1".into() });
}

async fn a_reservation_settles_once(store: TestStore) {
    let ledger = ledger(&store, Budgets::default());
    let reservation = ledger.reserve(cents(5), Arc::new(entry("openai/x", Usd::ZERO))).await.unwrap();
    assert_eq!(spent(&ledger).await, [(Usd::ZERO, cents(5)); 2]);
    for _ in 0..2 {
        ledger.settle(Some(reservation.clone()), entry("openai/x", cents(2))).await;
    }
    assert_eq!(spent(&ledger).await, [(cents(2), Usd::ZERO); 2]);
}

async fn an_hour_passes(store: &Store) {
    let ago = row::ago(LONGEST_WORK);
    sqlx::query("UPDATE usage SET created_at = $1 /* every row */").bind(ago).execute(&store.writer).await.unwrap();
}

async fn what_a_crash_cut_off_counts_as_spent(store: TestStore) {
    let ledger = ledger(&store, Budgets::default());
    ledger.reserve(cents(5), Arc::new(entry("openai/x", Usd::ZERO))).await.unwrap();
    let again = StoredLedger::new(ledger.store.clone(), Budgets::default());
    if store.kind == Kind::Postgres {
        again.recover(true).await;
        assert_eq!(spent(&again).await, [(Usd::ZERO, cents(5)); 2], "it may be another server's");
        an_hour_passes(&store).await;
    }
    again.recover(true).await;
    assert_eq!(spent(&again).await, [(cents(5), Usd::ZERO); 2]);
    let sums = again.sums(GroupBy::Model, "2000-01-01", "9999-01-01", None).await.unwrap();
    assert_eq!((sums[0].requests, sums[0].failed, sums[0].cost_usd), (1, 1, cents(5)));
}

async fn what_another_server_left_behind_is_settled_by_one_that_runs(store: TestStore) {
    let ledger = ledger(&store, Budgets::default());
    let reservation = ledger.reserve(cents(5), Arc::new(entry("openai/x", Usd::ZERO))).await.unwrap();
    ledger.recover(false).await;
    assert_eq!(spent(&ledger).await, [(Usd::ZERO, cents(5)); 2], "it may be under way");
    an_hour_passes(&store).await;
    for _ in 0..2 {
        ledger.recover(false).await;
        assert_eq!(spent(&ledger).await, [(cents(5), Usd::ZERO); 2]);
    }
    ledger.settle(Some(reservation), entry("openai/x", cents(2))).await;
    assert_eq!(spent(&ledger).await, [(cents(5), Usd::ZERO); 2], "it was settled");
}

async fn a_budget_that_is_nearly_used_up_is_told_once(store: TestStore) {
    let ledger = ledger(&store, Budgets { day: Some(cents(10)), month: None });
    let mut warnings = ledger.store.warnings();
    for cost in [7, 1, 1] {
        let reservation = ledger.reserve(cents(1), Arc::new(entry("openai/x", Usd::ZERO))).await.unwrap();
        ledger.settle(Some(reservation), entry("openai/x", cents(cost))).await;
        if cost == 7 {
            assert!(!warnings.has_changed().unwrap());
        }
    }
    assert!(warnings.has_changed().unwrap());
    let told = warnings.borrow_and_update().clone();
    assert_eq!((told.len(), told[0].budget, told[0].spent_usd), (1, "daily", cents(8)));
    assert!(!warnings.has_changed().unwrap());
}

async fn sums_are_by_group_and_leave_out_what_is_under_way(store: TestStore) {
    let ledger = ledger(&store, Budgets::default());
    for (model, cost) in [("openai/x", 3), ("smollm2", 0), ("openai/x", 4)] {
        ledger.settle(None, entry(model, cents(cost))).await;
    }
    ledger.reserve(cents(9), Arc::new(entry("openai/x", Usd::ZERO))).await.unwrap();
    let groups = |sums: Vec<UsageSum>| -> Vec<(Option<String>, i64, Usd, f64)> {
        sums.into_iter().map(|sum| (sum.group, sum.requests, sum.cost_usd, sum.device_seconds)).collect()
    };
    let by = async |by| groups(ledger.sums(by, &today(), &today(), None).await.unwrap());
    let two = |remote: &str, local: &str| {
        [(Some(remote.to_owned()), 2, cents(7), 0.0), (Some(local.to_owned()), 1, Usd::ZERO, 0.5)]
    };
    assert_eq!(by(GroupBy::Model).await, two("openai/x", "smollm2"));
    assert_eq!(by(GroupBy::Provider).await, two("openai", "local"));
    assert_eq!(by(GroupBy::Key).await, [(None, 3, cents(7), 0.5)]);
    assert_eq!(by(GroupBy::Conversation).await, [(Some("c".into()), 3, cents(7), 0.5)]);
    assert_eq!(by(GroupBy::Day).await, [(Some(today()), 3, cents(7), 0.5)]);
    assert!(ledger.sums(GroupBy::Day, "2000-01-01", "2000-01-02", None).await.unwrap().is_empty());
}
