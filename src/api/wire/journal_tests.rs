use serde_json::{Value, json};

use super::{Recall, told_again};

fn chunk(seq: u64, turn: u64, sentence: u64, text: &str) -> Value {
    json!({"type": "text_chunk", "character_id": "c", "item_id": "i", "seq": seq, "turn": turn,
           "sequence_number": sentence, "text": text})
}

#[test]
fn a_reply_that_has_not_ended_is_known_by_its_sentences() {
    let mut recall = Recall::default();
    for message in [chunk(2, 1, 1, "One"), chunk(3, 1, 1, " two. "), chunk(5, 1, 2, "Three")] {
        recall.read(&message);
    }
    assert_eq!((recall.last_seq, recall.turn, recall.sequence_number), (5, 1, 2));
    let (item, draft) = recall.unfinished().unwrap();
    assert_eq!((item.as_str(), draft.character_id.as_str(), draft.is_written), ("i", "c", false));
    assert_eq!(draft.sentences, [(1, "One two. ".to_owned()), (2, "Three".to_owned())]);
    assert_eq!(draft.text(), "One two. Three");
    recall.read(&json!({"type": "text_done", "item_id": "i", "text": "One two. Three", "seq": 6}));
    assert!(recall.draft("i").unwrap().is_written);
    recall.read(&chunk(7, 2, 3, "Again"));
    assert_eq!(recall.draft("i").unwrap().text(), "Again", "it is written again");
    recall.read(&json!({"type": "interrupted", "item_id": "i", "seq": 8}));
    assert_eq!((recall.unfinished(), recall.last_seq), (None, 8));
}

#[test]
fn a_message_is_told_again_as_it_was_but_for_the_token() {
    let started = json!({"type": "session_started", "resume_token": "", "seq": 1});
    let again: Value = serde_json::from_str(&told_again(&started, "t").unwrap()).unwrap();
    assert_eq!(again, json!({"type": "session_started", "resume_token": "t", "seq": 1}));
    let chunk = chunk(2, 1, 1, "One");
    assert_eq!(serde_json::from_str::<Value>(&told_again(&chunk, "t").unwrap()).unwrap(), chunk);
}
