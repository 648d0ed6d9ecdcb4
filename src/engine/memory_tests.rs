use super::*;

const MB: u64 = 1 << 20;

#[test]
fn what_fits_is_booked_and_given_back_on_drop() {
    let ledger = MemoryLedger::default();
    ledger.set_budget("cpu", 100 * MB);
    let whisper = ledger.reserve("cpu", "whisper-base", 60 * MB).unwrap();
    let error = ledger.reserve("cpu", "kokoro-82m", 41 * MB).unwrap_err().to_string();
    assert!(error.contains("kokoro-82m") && error.contains("41 MB") && error.contains("40 MB"), "{error}");
    let kokoro = ledger.reserve("cpu", "kokoro-82m", 40 * MB).unwrap();
    drop(whisper);
    assert_eq!(
        ledger.snapshot(),
        [DeviceLine {
            device: "cpu".to_owned(),
            budget: 100 * MB,
            reserved: 40 * MB,
            entries: vec![("kokoro-82m".to_owned(), 40 * MB)],
        }]
    );
    drop(kokoro);
    assert_eq!(ledger.snapshot()[0].reserved, 0);
}

#[test]
fn devices_have_separate_budgets() {
    let ledger = MemoryLedger::default();
    ledger.set_budget("cuda:0", 10 * MB);
    assert!(matches!(ledger.reserve("cpu", "a", 1), Err(EngineError::DoesNotFit { .. })));
    let _held = ledger.clone().reserve("cuda:0", "a", 10 * MB).unwrap();
    assert!(ledger.reserve("cuda:0", "b", 1).is_err());
    ledger.set_budget("cuda:0", 5 * MB);
    assert!(ledger.reserve("cuda:0", "b", 1).is_err(), "a shrunk budget has no free bytes");
    assert!(ledger.reserve("cuda:0", "c", u64::MAX).is_err());
}
