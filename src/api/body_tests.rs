use super::*;

#[test]
fn what_would_take_much_memory_for_its_length_is_dense() {
    let objects = |count: usize| format!("{{\"x\":[{}1]}}", "{\"\":0},".repeat(count));
    assert!(!is_dense(objects(1000).as_bytes()));
    assert!(is_dense(objects(250_000).as_bytes()), "2 MB");
    assert!(is_dense(format!("[{}0]", "0,".repeat(MOST_VALUES + 1)).as_bytes()));
    // Texts count for nothing, whatever they hold.
    let text = "{,[\\\"".repeat(MOST_VALUES);
    assert!(!is_dense(format!("{{\"content\":\"{text}\"}}").as_bytes()));
    // The longest import, with what the server itself writes of each message.
    let message = format!("{{\"id\":\"{}\",\"metadata\":{{\"usage\":{{}}}},\"attachments\":[]}},", "i".repeat(300));
    assert!(!is_dense(format!("[{}]", message.repeat(50_000)).as_bytes()));
}
