use super::*;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the guard's items are not all small")]
fn last(number: &u32) -> bool {
    *number == 0
}

async fn all(call: impl FnOnce() -> Flow<u32>) -> Vec<Result<u32, ProviderError>> {
    guarded("it", call, last).collect().await
}

fn failed() -> Result<u32, ProviderError> {
    Err(ProviderError::Failed { what: "it".to_owned() })
}

#[tokio::test]
async fn nothing_comes_after_the_terminal_item() {
    assert_eq!(all(|| stream::iter([Ok(2), Ok(0), Ok(3)]).boxed()).await, [Ok(2), Ok(0)]);
    let overloaded = ProviderError::TimedOut { what: "it".to_owned(), after: std::time::Duration::from_secs(1) };
    let items = [Err(overloaded.clone()), Ok(3)];
    assert_eq!(all(|| stream::iter(items).boxed()).await, [Err(overloaded)]);
}

#[tokio::test]
async fn an_end_without_an_end_and_a_panic_are_failures() {
    assert_eq!(all(|| stream::iter([Ok(2)]).boxed()).await, [Ok(2), failed()]);
    assert_eq!(all(|| panic!("on purpose")).await, [failed()]);
    let panics = stream::iter([2, 1]).map(|number| if number == 1 { panic!("on purpose") } else { Ok(number) });
    assert_eq!(all(|| panics.boxed()).await, [Ok(2), failed()]);
}
