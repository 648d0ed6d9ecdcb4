use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[test]
fn what_breaks_off_is_unfinished_whatever_mark_it_bears() {
    for (language, text) in [
        ("en", "I would like to go to the."),
        ("en", "I was thinking that we..."),
        ("en", "Is there anything that I should?"),
        ("en", "What is the difference between?"),
        ("en", "Unless to be rather cold-hearted and rather selfish is to be."),
        ("en", "8 of spades, 4 of clubs"),
        ("en", "I need some bread,"),
        ("en", "If it rains on Saturday."),
        ("en", "I came home. When I was a child."),
        ("en", "Well, um."),
        ("en", "Yes. Actually."),
        ("en", "Well, if it rains."),
        ("en", "First you boil the water."),
        ("en", "First you boil the water and then you."),
        ("en", "She asked him how old he was."),
        ("en", "It was late, so, like, because."),
        ("de", "Ich gehe morgen in die."),
        ("de", "Wenn es morgen regnet."),
        ("de", "Also, ähm."),
        ("fr", "Je voudrais aller à la."),
        ("fr", "Bien que je sois malade."),
        ("fr", "Euh."),
        ("es", "Quiero ir al cine con."),
        ("es", "Si llueve mañana."),
        ("es", "Pues, por ejemplo."),
        ("ja", "明日は、"),
        ("pl", "Chciałbym kupić"),
    ] {
        assert_eq!(outlook(text, language), Outlook::Unfinished, "{text}");
    }
}

#[test]
fn what_can_end_a_sentence_ends_it() {
    for (language, text) in [
        ("en", "I need to buy some bread."),
        ("en", "How are you?"),
        ("en", "\"Stop!\""),
        ("en", "Yes."),
        ("en", "Yes, it is."),
        ("en", "I can."),
        ("en", "If it rains on Saturday, we could stay at home."),
        ("en", "First you boil the water and then you add the pasta."),
        ("en", "She is older than he was."),
        ("en", "The town is smaller than it used to be."),
        ("en", "When is the train?"),
        ("en", "What is that?"),
        ("en", "Who?"),
        ("en", "Well, I do not know."),
        ("en", "Mr. Smith is here."),
        ("en", "It costs 3.50."),
        ("en", ""),
        ("de", "Ich gehe morgen in die Stadt."),
        ("de", "Mach bitte das Licht an."),
        ("de", "Was ist das?"),
        ("de", "Wenn es regnet, bleiben wir zu Hause."),
        ("de", "Zuerst kocht man Wasser und dann kommt der Reis hinein."),
        ("fr", "Je voudrais un café."),
        ("fr", "Quand est-ce que tu viens ?"),
        ("es", "¿Cuándo sale el tren?"),
        ("ja", "明日は晴れです。"),
        ("pl", "Chciałbym kupić chleb i."),
        ("xx", "The."),
    ] {
        assert_eq!(outlook(text, language), Outlook::Finished, "{text}");
    }
}

#[test]
fn no_word_stands_twice_in_a_list() {
    for words in &WORDS {
        for list in [words.bound, words.verbs, words.first_clause, words.openers] {
            let unique: BTreeSet<_> = list.iter().collect();
            assert_eq!(unique.len(), list.len(), "{}: {list:?}", words.language);
        }
        let is_listed = |word: &&&str| words.first_clause.contains(*word) || words.bound.contains(*word);
        assert!(words.questions.iter().all(|word| is_listed(&word)), "{}", words.language);
    }
}

proptest! {
    #[test]
    fn any_text_is_judged(text in "[ a-z.,?!…。'é-]{0,40}", language in prop::sample::select(vec!["en", "de", "fr", "es", "xx"])) {
        let judged = outlook(&text, language);
        let ends = text.trim_end().trim_end_matches('\'').ends_with(['.', '?', '!', '。']);
        prop_assert!(ends || text.trim().trim_matches('\'').is_empty() || judged == Outlook::Unfinished);
    }
}
