use proptest::prelude::*;

use super::*;

/// The chunks of a reply that comes in one piece.
fn chunks(text: &str) -> Vec<String> {
    split(std::iter::once(text))
}

fn split<'a>(deltas: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut chunker = Chunker::default();
    let mut pieces: Vec<Piece> = deltas.flat_map(|delta| chunker.push(delta)).collect();
    pieces.extend(chunker.finish());
    pieces.into_iter().filter_map(|piece| piece.whole).collect()
}

/// Sentences after a first one, which has its own rule.
fn sentences(text: &str) -> Vec<String> {
    let opening = "This first sentence is here. ";
    let mut chunks = chunks(&format!("{opening}{text}"));
    assert_eq!(chunks.remove(0), opening);
    chunks
}

#[test]
fn the_first_chunk_is_a_clause() {
    let reply = "Well, that is a good question, and I will try to answer it. Let me think about it first.";
    assert_eq!(
        chunks(reply),
        ["Well, that is a good question, ", "and I will try to answer it. ", "Let me think about it first."]
    );
    assert_eq!(chunks("Sure thing, my friend: here it is.")[0], "Sure thing, my friend: ");
    assert_eq!(chunks("That is true — but only partly so.")[0], "That is true — ");
    assert_eq!(chunks("That is very true—but only partly so.")[0], "That is very true—");
    assert_eq!(chunks("That is very true - but only partly so.")[0], "That is very true - ");
    assert_eq!(chunks("A well-known state-of-the-art, is it?")[0], "A well-known state-of-the-art, ");
}

#[test]
fn a_first_chunk_without_a_mark_ends_after_a_long_word() {
    let reply = "The garden gate was left open after the evening rain and everything got wet.";
    assert_eq!(chunks(reply)[0], "The garden gate was left open after the evening ");
    let reply = "It is not at all what it was to be in the old days of the war and so on.";
    assert_eq!(chunks(reply)[0], "It is not at all what it was to be in the old days ");
}

#[test]
fn the_first_chunk_is_no_fragment() {
    assert_eq!(chunks("Hi! How are you today?"), ["Hi! How are you today?"]);
    assert_eq!(chunks("Yes. No. Maybe so, I guess. Ok."), ["Yes. No. Maybe so, ", "I guess. Ok."]);
    assert_eq!(chunks("Of course! I can help you with that. What is it?")[0], "Of course! I can help you with that. ");
}

#[test]
fn sentences_are_cut() {
    assert_eq!(
        sentences("It was raining all the day. Nobody came to the house! Was anybody there at all? No one knows."),
        ["It was raining all the day. ", "Nobody came to the house! ", "Was anybody there at all? ", "No one knows."]
    );
    assert_eq!(
        sentences("\"I will not go there again!\" she said to him. (It was her last word, I think.) Then she left us."),
        ["\"I will not go there again!\" she said to him. ", "(It was her last word, I think.) ", "Then she left us."]
    );
}

#[test]
fn tiny_sentences_go_with_the_next() {
    assert_eq!(
        sentences("No. Never. Not in a thousand years, my dear. Go."),
        ["No. Never. Not in a thousand years, my dear. ", "Go."]
    );
}

#[test]
fn abbreviations_numbers_and_addresses_are_not_cut() {
    for whole in [
        "I met Dr. Smith and Prof. Jones at St. Mary's yesterday evening.",
        "Bring some fruit, e.g. Apples or pears, i.e. Something that is sweet.",
        "The value of pi is about 3.14159 and that of e is 2.71828 or so.",
        "We met J. R. R. Tolkien and George W. Bush in the U.S. Capitol then.",
        "The train leaves at 5 p.m. on Monday, and it arrives at 7 a.m. on Tuesday.",
        "Look at https://www.example.com/a.b/c?d=e!f and mail john.doe@example.com. it helps.",
        "It is Fig. 3 on p. 25 of vol. 2, in No. 7 of the whole long series.",
        "Das ist z.B. Herr Dr. Müller bzw. Frau Prof. Schmidt aus der Stadt.",
        "Am 3. Oktober und am 24. Dezember haben wir in der Schule frei.",
        "El Sr. García y la Sra. López viven en la Avda. Central desde ayer.",
        "M. Dupont et Mme. Durand sont partis avec Mlle. Petit ce matin.",
        "I was thinking... maybe we should… go there another time instead.",
        "Version 2.0.1 came after 1.9.9, and Node.js is at 22.5.1 already.",
    ] {
        assert_eq!(sentences(whole), [whole]);
    }
}

#[test]
fn an_abbreviation_may_end_a_sentence() {
    assert_eq!(
        sentences("The train leaves at around 5 p.m. The next one leaves at 6 p.m."),
        ["The train leaves at around 5 p.m. ", "The next one leaves at 6 p.m."]
    );
    assert_eq!(
        sentences("I was wondering about it... Then it came to me at last."),
        ["I was wondering about it... ", "Then it came to me at last."]
    );
}

#[test]
fn scripts_without_blanks_are_cut() {
    assert_eq!(
        chunks("こんにちは、元気ですか？今日はとてもいい天気ですね。散歩に行きましょう。"),
        ["こんにちは、元気ですか？", "今日はとてもいい天気ですね。", "散歩に行きましょう。"]
    );
    assert_eq!(
        sentences("「今日はとてもいい天気ですね。」と彼は言いました。明日はどうなるでしょうか。"),
        ["「今日はとてもいい天気ですね。」", "と彼は言いました。明日はどうなるでしょうか。"]
    );
    assert_eq!(
        sentences("यह एक बहुत अच्छा दिन है और हम खुश हैं। हम कल फिर से मिलेंगे, ठीक है।"),
        ["यह एक बहुत अच्छा दिन है और हम खुश हैं। ", "हम कल फिर से मिलेंगे, ठीक है।"]
    );
    assert_eq!(
        sentences("هل ستأتي معنا إلى المدرسة غدا؟ نعم، سآتي معكم إن شاء الله."),
        ["هل ستأتي معنا إلى المدرسة غدا؟ ", "نعم، سآتي معكم إن شاء الله."]
    );
}

#[test]
fn lines_of_markdown_are_cut() {
    assert_eq!(
        chunks("# The plan for tomorrow\n\nWe get up early. Then we go there by train.\n"),
        ["# The plan for tomorrow\n\n", "We get up early. Then we go there by train.\n"]
    );
    assert_eq!(
        sentences("1. Take the first step slowly\n2. Take the second one faster\n"),
        ["1. Take the first step slowly\n", "2. Take the second one faster\n"]
    );
}

#[test]
fn code_is_one_chunk() {
    let text =
        "Here is the program for you:\n```python\nprint('Hello. World!')\n\n# Done. Really.\nexit()\n```\nIt prints.";
    assert_eq!(
        chunks(text),
        [
            "Here is the program for you:\n",
            "```python\nprint('Hello. World!')\n\n# Done. Really.\nexit()\n```\n",
            "It prints."
        ]
    );
}

#[test]
fn stage_directions_are_not_cut() {
    assert_eq!(
        chunks("*She leans back slowly. She smiles at you.* Hello there, my friend."),
        ["*She leans back slowly. She smiles at you.* ", "Hello there, my friend."]
    );
    assert_eq!(
        sentences("Take 3 * 4 as an example here. It makes twelve, of course."),
        ["Take 3 * 4 as an example here. ", "It makes twelve, of course."]
    );
}

#[test]
fn long_sentences_are_cut_at_clauses_then_at_words() {
    let clauses = "we walked along the river for an hour or two, ".repeat(10);
    let cut = chunks(&clauses);
    assert!(cut.iter().skip(1).all(|chunk| chunk.ends_with(", ") && chunk.len() < WORD_CAP), "{cut:?}");
    let words = "walking along the river ".repeat(40);
    let cut = chunks(&words);
    assert!(cut.len() >= 4 && cut.iter().all(|chunk| chunk.ends_with(' ') && chunk.len() <= WORD_CAP + 10), "{cut:?}");
    let nothing = "a".repeat(1_000);
    assert_eq!(chunks(&nothing).iter().map(String::len).collect::<Vec<_>>(), [400, 400, 200]);
}

/// Every piece is known to be of its chunk when it comes.
#[test]
fn pieces_come_at_once() {
    let mut chunker = Chunker::default();
    let piece = |chunk, text: &str, whole: Option<&str>| Piece {
        chunk,
        text: text.to_owned(),
        whole: whole.map(str::to_owned),
    };
    assert_eq!(chunker.push("That is fi"), [piece(0, "That is fi", None)]);
    assert_eq!(chunker.push("ne, really."), [piece(0, "ne, ", Some("That is fine, ")), piece(1, "really.", None)]);
    assert_eq!(chunker.push(" And I like the idea."), [piece(1, " And I like the idea.", None)]);
    assert_eq!(chunker.push(""), []);
    assert_eq!(chunker.push(" "), [piece(1, " ", None)]);
    assert_eq!(chunker.push("Go"), [piece(1, "", Some("really. And I like the idea. ")), piece(2, "Go", None)]);
    assert_eq!(chunker.finish(), Some(piece(2, "", Some("Go"))));
    assert_eq!(chunker.finish(), None);
}

/// Text like that of a model, and anything else.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-zA-Z]{1,9}",
        3 => Just(" ".to_owned()),
        1 => "[.,;:!?…—*`\"'()\\[\\]\n#-]{1,4}",
        1 => "[。！？、।॥「」]",
        1 => "(Dr|e\\.g|p\\.m|3\\.14|No)\\. ?",
        1 => "\\PC{1,5}",
        1 => any::<char>().prop_map(String::from),
        1 => Just("👨‍👩‍👧‍👦🇩🇪é\u{0301}".to_owned()),
        1 => Just("\n```\n".to_owned()),
    ];
    prop::collection::vec(part, 0..150).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn chunks_are_the_text_however_it_comes(text in text(), cuts in prop::collection::vec(0usize..400, 0..40)) {
        let whole = chunks(&text);
        prop_assert_eq!(whole.concat(), text.as_str());
        prop_assert!(whole.iter().all(|chunk| !chunk.is_empty()));

        let mut cuts: Vec<usize> = cuts.into_iter().filter(|at| text.is_char_boundary(*at)).collect();
        cuts.sort_unstable();
        let ends = cuts.iter().copied().filter(|at| *at <= text.len()).chain([text.len()]);
        let mut start = 0;
        let deltas: Vec<&str> = ends.map(|end| { let part = &text[start..end]; start = end; part }).collect();
        prop_assert_eq!(&split(deltas.iter().copied()), &whole);

        // What is forwarded at once is what the chunk will be.
        let mut chunker = Chunker::default();
        let mut forwarded = vec![String::new(); whole.len()];
        let mut pieces: Vec<Piece> = deltas.iter().flat_map(|delta| chunker.push(delta)).collect();
        prop_assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(), text.as_str());
        pieces.extend(chunker.finish());
        for piece in pieces {
            forwarded[piece.chunk].push_str(&piece.text);
            if let Some(complete) = piece.whole {
                prop_assert_eq!(&forwarded[piece.chunk], &complete);
            }
        }
        prop_assert_eq!(forwarded, whole);
    }

    #[test]
    fn chunks_are_no_longer_than_a_breath(text in text()) {
        for chunk in chunks(&text).iter().filter(|chunk| !chunk.contains("```")) {
            let width: usize = chunk.chars().map(width).sum();
            // A grapheme, however long, is not cut.
            prop_assert!(width <= HARD_CAP + 40, "{width}: {chunk:?}");
        }
    }
}
