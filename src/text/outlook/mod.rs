//! Whether a speaker who pauses here is through, as far as words and punctuation tell.
//!
//! Recognisers end nearly every stretch of audio with a full stop, also one that breaks off in the middle ("I would like
//! to go to the."). So a mark alone proves little: the last words must be able to end a sentence, and a clause that
//! waits for another one ("If it rains on Saturday.") must have it. To wait once too often costs some tenths of a
//! second; not to wait cuts a speaker off. So what is in doubt waits, and words that seldom end a sentence count
//! although they sometimes do.

mod answer;
mod question;

pub use answer::is_answer;
pub use question::is_plain_question;

/// What is to be expected after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// This can have been all.
    Finished,
    /// More is to come.
    Unfinished,
}

/// Words of one language, folded to lower case.
struct Words {
    language: &'static str,
    /// A sentence that ends with one of these goes on: articles, prepositions, conjunctions, fillers.
    bound: &'static [&'static str],
    /// As `bound`, but for short answers such as "yes, it is".
    verbs: &'static [&'static str],
    /// A sentence that begins so needs a second clause, after a comma,
    first_clause: &'static [&'static str],
    /// or after one of these.
    second_clause: &'static [&'static str],
    /// Of `bound` and `first_clause`, those that end and begin questions too.
    questions: &'static [&'static str],
    /// A sentence that is nothing else has only begun.
    openers: &'static [&'static str],
}

const WORDS: [Words; 4] = [
    Words {
        language: "en",
        bound: &[
            "a", "about", "after", "although", "always", "an", "and", "as", "at", "because", "before", "between",
            "but", "by", "during", "each", "er", "erm", "every", "for", "from", "gonna", "if", "in", "into", "its",
            "like", "more", "my", "nor", "of", "on", "or", "our", "per", "quite", "rather", "really", "since", "some",
            "than", "that", "the", "their", "these", "those", "to", "toward", "towards", "uh", "uhm", "um", "unless",
            "until", "upon", "very", "wanna", "we're", "when", "where", "whereas", "whether", "which", "while", "who",
            "whose", "with", "without", "your", "you're", "i'm", "they're", "it's",
        ],
        verbs: &[
            "am", "are", "be", "been", "can", "could", "did", "do", "does", "had", "has", "have", "is", "may", "might",
            "must", "shall", "should", "was", "were", "will", "would",
        ],
        first_clause: &[
            "although",
            "as soon as",
            "even if",
            "even though",
            "first",
            "firstly",
            "if",
            "once",
            "since",
            "though",
            "unless",
            "until",
            "when",
            "whenever",
            "whereas",
            "while",
        ],
        second_clause: &["then"],
        questions: &["really", "since", "some", "that", "these", "those", "until", "when", "where", "which", "who"],
        openers: &[
            "actually",
            "and",
            "because",
            "but",
            "by the way",
            "er",
            "erm",
            "for example",
            "hm",
            "hmm",
            "honestly",
            "i mean",
            "i think",
            "in fact",
            "in my opinion",
            "let me see",
            "let me think",
            "like",
            "on the other hand",
            "so",
            "the thing is",
            "then",
            "uh",
            "uhm",
            "um",
            "well",
            "you know",
        ],
    },
    Words {
        language: "de",
        bound: &[
            "aber", "als", "am", "äh", "ähm", "beim", "bis", "damit", "dass", "dein", "deine", "deinen", "dem", "den",
            "denn", "der", "des", "die", "durch", "ein", "eine", "einem", "einen", "einer", "eines", "für", "gegen",
            "hm", "ihre", "im", "in", "ins", "jede", "jeden", "jeder", "kein", "keine", "keinen", "mein", "meine",
            "meinem", "meinen", "meiner", "nachdem", "ob", "obwohl", "oder", "ohne", "sehr", "seit", "seine", "seinen",
            "seiner", "sondern", "sowie", "und", "unser", "unsere", "vom", "von", "weil", "wenn", "während", "zum",
            "zur", "zwischen", "öh",
        ],
        verbs: &[],
        first_clause: &[
            "als", "bevor", "falls", "nachdem", "obwohl", "seitdem", "sobald", "solange", "sooft", "während", "wenn",
            "zuerst",
        ],
        second_clause: &["dann", "danach"],
        questions: &["während"],
        openers: &[
            "aber",
            "also",
            "das heißt",
            "eigentlich",
            "hm",
            "ich denke",
            "ich glaube",
            "ich meine",
            "ja also",
            "meiner meinung nach",
            "moment",
            "na ja",
            "nun",
            "nun ja",
            "tja",
            "und",
            "weil",
            "weißt du",
            "zum beispiel",
            "äh",
            "ähm",
        ],
    },
    Words {
        language: "fr",
        bound: &[
            "afin", "au", "aux", "avec", "avant", "car", "ce", "ces", "cette", "chaque", "chez", "comme", "contre",
            "dans", "de", "depuis", "des", "donc", "dont", "du", "elle", "en", "entre", "est", "et", "euh", "heu",
            "il", "ils", "j'ai", "je", "la", "le", "les", "leur", "leurs", "lorsque", "ma", "mais", "mes", "mon", "ne",
            "nos", "notre", "on", "or", "ou", "où", "par", "parce", "pendant", "pour", "puisque", "quand", "que",
            "qui", "sa", "sans", "sauf", "ses", "si", "son", "sous", "sur", "ta", "tes", "ton", "très", "trop", "tu",
            "un", "une", "vers", "vos", "votre", "à",
        ],
        verbs: &[],
        first_clause: &[
            "alors que",
            "avant de",
            "avant que",
            "bien que",
            "d'abord",
            "depuis que",
            "dès que",
            "lorsque",
            "même si",
            "pendant que",
            "puisque",
            "quand",
            "quoique",
            "si",
            "tandis que",
        ],
        second_clause: &["ensuite", "puis"],
        questions: &["quand", "depuis que"],
        openers: &[
            "alors",
            "ben",
            "bon",
            "donc",
            "en fait",
            "euh",
            "eh bien",
            "heu",
            "je crois",
            "je pense",
            "mais",
            "par exemple",
            "parce que",
            "tu sais",
            "tu vois",
            "vous savez",
            "à mon avis",
            "et",
        ],
    },
    Words {
        language: "es",
        bound: &[
            "a", "al", "ante", "aunque", "cada", "como", "con", "contra", "cuando", "de", "del", "desde", "donde",
            "durante", "e", "eh", "el", "en", "entre", "hacia", "hasta", "la", "las", "los", "mi", "mientras", "mis",
            "muy", "ni", "nuestra", "nuestro", "o", "para", "pero", "por", "porque", "que", "se", "según", "si", "sin",
            "sobre", "su", "sus", "tan", "tras", "tu", "tus", "u", "un", "una", "unas", "unos", "y",
        ],
        verbs: &[],
        first_clause: &[
            "antes de",
            "antes de que",
            "aunque",
            "cuando",
            "después de",
            "en cuanto",
            "mientras",
            "primero",
            "si",
            "siempre que",
            "tan pronto como",
        ],
        second_clause: &["luego", "después"],
        questions: &[],
        openers: &[
            "a ver",
            "bueno",
            "creo que",
            "eh",
            "em",
            "en mi opinión",
            "en realidad",
            "entonces",
            "es que",
            "este",
            "mira",
            "o sea",
            "pero",
            "por cierto",
            "por ejemplo",
            "porque",
            "pues",
            "sabes",
            "y",
        ],
    },
];

/// Who answers with a verb alone.
const PRONOUNS: [&str; 11] = ["i", "you", "he", "she", "it", "we", "they", "there", "that", "this", "who"];
/// "Yes, it is." is not longer.
const SHORT_ANSWER: usize = 3;
/// "Than it used to be" is not longer.
const COMPARISON: usize = 5;
/// A second clause has so many words at least.
const SHORTEST_CLAUSE: usize = 2;

/// Judges all that was said before a pause. `language` is an ISO 639-1 code; of a language without a list only the
/// punctuation counts.
pub fn outlook(text: &str, language: &str) -> Outlook {
    let text = text.trim_end().trim_end_matches(['"', '\'', '”', '’', '»', ')', ']', '」', '』']);
    let Some(mark) = text.chars().next_back() else { return Outlook::Finished };
    if !is_end(mark) || text.ends_with("..") {
        return Outlook::Unfinished;
    }
    let body = text.trim_end_matches(is_end);
    let sentence = body.rfind(|c| is_end(c) && c != '.').map_or(body, |at| &body[at..]);
    let sentence = sentence.rfind(". ").map_or(sentence, |at| &sentence[at..]);
    let Some(known) = WORDS.iter().find(|words| words.language == language) else { return Outlook::Finished };
    if known.expects_more(sentence, mark == '?') { Outlook::Unfinished } else { Outlook::Finished }
}

impl Words {
    /// `sentence` is without its last mark.
    fn expects_more(&self, sentence: &str, is_question: bool) -> bool {
        let clauses: Vec<Vec<String>> = sentence.split([',', ';', ':']).map(words).collect();
        let words: Vec<&str> = clauses.iter().flatten().map(String::as_str).collect();
        let Some(last) = words.last() else { return false };
        let ends_question = is_question && self.questions.contains(last);
        (self.bound.contains(last) && !ends_question)
            || (self.verbs.contains(last) && !is_short_answer(&words) && !ends_comparison(&words))
            || clauses.iter().filter(|clause| !clause.is_empty()).all(|clause| self.is_opener(clause))
            || self.lacks_second_clause(&clauses, is_question)
    }

    fn is_opener(&self, clause: &[String]) -> bool {
        self.openers.contains(&clause.join(" ").as_str())
    }

    fn lacks_second_clause(&self, clauses: &[Vec<String>], is_question: bool) -> bool {
        let rest: Vec<&Vec<String>> = clauses.iter().filter(|clause| !self.is_opener(clause)).collect();
        let Some((opened, more)) = rest.split_first() else { return false };
        let first = opened.join(" ");
        let begins = |opening: &&&str| {
            let rest = first.strip_prefix(**opening);
            rest.is_some_and(|rest| rest.starts_with(' ')) && !(is_question && self.questions.contains(*opening))
        };
        let follows = |clause: &&[String]| clause.len() > SHORTEST_CLAUSE && self.second_clause.contains(&&*clause[0]);
        let mut ends = (0..opened.len()).map(|at| &opened[at..]);
        self.first_clause.iter().any(|opening| begins(&opening))
            && more.iter().all(|clause| clause.len() < SHORTEST_CLAUSE)
            && ends.find(follows).is_none()
    }
}

fn is_end(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '。' | '！' | '？' | '．' | '؟' | '।' | '۔' | '։' | '។' | '።')
}

fn is_short_answer(words: &[&str]) -> bool {
    let before = words.len().checked_sub(2).and_then(|at| words.get(at));
    words.len() <= SHORT_ANSWER && before.is_some_and(|word| PRONOUNS.contains(word))
}

/// "… than he was".
fn ends_comparison(words: &[&str]) -> bool {
    words[words.len().saturating_sub(COMPARISON)..words.len().saturating_sub(2)].contains(&"than")
}

fn words(text: &str) -> Vec<String> {
    let kept = |c: char| c.is_alphanumeric() || matches!(c, '\'' | '’' | '-');
    let words = text.split(|c| !kept(c)).filter(|word| word.chars().any(char::is_alphanumeric));
    words.map(|word| word.trim_matches(['\'', '’', '-']).replace('’', "'").to_lowercase()).collect()
}

#[cfg(test)]
mod tests;
