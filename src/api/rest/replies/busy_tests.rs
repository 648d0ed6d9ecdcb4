use futures::FutureExt;

use super::*;

#[test]
fn a_conversation_is_entered_by_one_at_a_time() {
    let busy = Arc::new(Busy::default());
    let pass = busy.enter("o", "c").unwrap();
    assert!(busy.enter("o", "c").is_none());
    assert!(busy.enter("o", "d").is_some() && busy.enter("p", "c").is_some());
    let mut next = Box::pin(pass.leave().unwrap().entered());
    assert!(next.as_mut().now_or_never().is_none(), "others do not count");
    let again = busy.enter("o", "c").unwrap();
    assert!(next.as_mut().now_or_never().is_some());
    drop(again);
    assert!(busy.enter("o", "c").is_some());
}
