use proptest::prelude::*;

use super::*;

#[test]
fn what_was_promised_is_shown_whatever_comes() {
    let mut promise = Promise::default();
    assert_eq!(promise.keep("We are", 2), ("We are".to_owned(), 2));
    assert_eq!(promise.keep("They are at home", 0), ("We are at home".to_owned(), 2));
    assert_eq!(promise.keep("We are at", 6), ("We are at".to_owned(), 6));
    assert_eq!(promise.keep("", 0), ("We are".to_owned(), 6));
    assert_eq!(promise.keep("We are at home", 99), ("We are at home".to_owned(), 14));
}

proptest! {
    #[test]
    fn the_promise_only_grows(hypotheses in prop::collection::vec(("[ab .é]{0,12}", 0_usize..14), 0..12)) {
        let mut promise = Promise::default();
        let mut before = String::new();
        for (hypothesis, stable) in hypotheses {
            let (shown, kept) = promise.keep(&hypothesis, stable);
            prop_assert!(shown.starts_with(&before), "{} after {}", shown, before);
            prop_assert!(kept >= before.chars().count() && kept <= shown.chars().count());
            before = shown.chars().take(kept).collect();
        }
    }
}
