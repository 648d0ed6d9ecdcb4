use proptest::prelude::*;

use super::*;

#[test]
fn two_hypotheses_promise_their_common_words() {
    let mut agreement = Agreement::default();
    assert_eq!(agreement.update("Go for"), ("Go for".to_owned(), 0));
    assert_eq!(agreement.update("Go forward"), ("Go forward".to_owned(), 2));
    assert_eq!(agreement.update("Go forward ten"), ("Go forward ten".to_owned(), 10));
}

#[test]
fn a_promise_holds_when_the_model_changes_its_mind() {
    let mut agreement = Agreement::default();
    agreement.update("Go forward ten");
    assert_eq!(agreement.update("Go forward ten").1, 14);
    assert_eq!(agreement.update("God for word then meters"), ("Go forward ten then meters".to_owned(), 14));
    assert_eq!(agreement.update("Go"), ("Go forward ten".to_owned(), 14));
    assert_eq!(agreement.update(""), ("Go forward ten".to_owned(), 14));
}

#[test]
fn characters_are_counted_not_bytes() {
    let mut agreement = Agreement::default();
    agreement.update("Zażółć gęślą");
    assert_eq!(agreement.update("Zażółć gęślą jaźń").1, 12);
    let mut agreement = Agreement::default();
    agreement.update("今日は");
    assert_eq!(agreement.update("今日はいい"), ("今日はいい".to_owned(), 3));
}

#[test]
fn what_is_settled_is_promised_whole() {
    let mut agreement = Agreement::default();
    agreement.update("Go for");
    assert_eq!(agreement.settle("Go forward ten meters."), ("Go forward ten meters.".to_owned(), 22));
    assert_eq!(agreement.update("Go forward ten meters. And").1, 22);
    let whole = "Go forward ten meters. And back.";
    assert_eq!(agreement.settle(whole), (whole.to_owned(), 32));
}

proptest! {
    #[test]
    fn whatever_is_heard_the_promise_only_grows(
        heard in prop::collection::vec(("([aé日]{1,3} ?){0,5}", any::<bool>()), 0..20),
    ) {
        let mut agreement = Agreement::default();
        let mut promised = String::new();
        for (text, is_settled) in heard {
            let (shown, stable) = if is_settled { agreement.settle(&text) } else { agreement.update(&text) };
            prop_assert!(shown.starts_with(&promised), "{promised:?} was promised, {shown:?} is shown");
            prop_assert!((promised.chars().count()..=shown.chars().count()).contains(&stable));
            promised = shown.chars().take(stable).collect();
        }
    }
}
