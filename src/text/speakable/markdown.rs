//! Markdown to the words in it: marks go, labels stay, code fences, tables' rules and stage directions are dropped.
//!
//! Tolerant, since a chunk may begin or end inside anything: a mark without its partner is just dropped.

/// A tag or a link's address is not longer than this.
const LONGEST_TAG: usize = 500;

/// What stage directions begin with, besides verbs that are recognised by their form.
const DIRECTIONS: &[&str] = &[
    "beams",
    "blinks",
    "blushes",
    "bows",
    "chuckles",
    "claps",
    "coughs",
    "cries",
    "frowns",
    "gasps",
    "giggles",
    "grins",
    "groans",
    "hugs",
    "hums",
    "laughs",
    "leans",
    "looks",
    "nods",
    "pauses",
    "ponders",
    "shrugs",
    "sighs",
    "sings",
    "sips",
    "smiles",
    "smirks",
    "sniffs",
    "sobs",
    "stretches",
    "thinks",
    "tilts",
    "waves",
    "whispers",
    "whistles",
    "winks",
    "yawns",
    "lacht",
    "lächelt",
    "nickt",
    "seufzt",
    "sonríe",
    "ríe",
    "suspira",
    "asiente",
    "sourit",
    "rit",
    "soupire",
    "sorride",
    "ride",
    "sospira",
    "sorri",
    "ri",
];

/// Words that end like the third person of a verb and are none.
const NO_VERBS: &[&str] = &[
    "this",
    "his",
    "its",
    "is",
    "was",
    "as",
    "us",
    "has",
    "does",
    "yes",
    "always",
    "perhaps",
    "thus",
    "plus",
    "less",
    "unless",
    "across",
    "sometimes",
    "besides",
    "yours",
    "ours",
    "hers",
    "theirs",
    "nothing",
    "something",
    "everything",
    "anything",
    "during",
    "bring",
    "thing",
    "king",
    "les",
    "des",
    "mes",
    "tres",
    "más",
];

/// The plain text of Markdown, in one line.
pub(super) fn plain(text: &str) -> String {
    let mut output = String::new();
    let mut in_fence = false;
    let mut previous = Kind::None;
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with("```") || line.starts_with("~~~") {
            in_fence = !in_fence;
            previous = previous.interrupted();
            continue;
        }
        if in_fence || is_rule(line) {
            continue;
        }
        if line.is_empty() {
            previous = previous.interrupted();
            continue;
        }
        let (kind, content) = strip_block_marks(line);
        let content = strip_inline_marks(&content);
        let content = content.trim();
        if content.is_empty() {
            continue;
        }
        join(&mut output, previous, kind);
        output.push_str(content);
        previous = kind;
    }
    // What a heading or an item says, at the end of a chunk, is a sentence.
    if matches!(previous, Kind::Heading | Kind::Item) && ends_open(&output) {
        output.push('.');
    }
    output
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    None,
    Blank,
    Heading,
    Item,
    Prose,
}

impl Kind {
    /// What counts as the line before the next one after a blank line or a fence: a heading or an item stays one.
    fn interrupted(self) -> Self {
        if self == Self::Prose { Self::Blank } else { self }
    }
}

/// Puts between two lines what a reader's voice would do.
fn join(output: &mut String, previous: Kind, next: Kind) {
    if output.is_empty() {
        return;
    }
    if ends_open(output) {
        match (previous, next) {
            (Kind::Item, Kind::Item) => output.push(','),
            (Kind::Prose, Kind::Item) => output.push(':'),
            (Kind::Prose, Kind::Prose) => {}
            _ => output.push('.'),
        }
    }
    output.push(' ');
}

/// No punctuation ends it.
fn ends_open(text: &str) -> bool {
    text.trim_end_matches(['"', '\'', '”', '’', ')']).chars().next_back().is_some_and(char::is_alphanumeric)
}

/// `---`, `***`, `|---|:--|`.
fn is_rule(line: &str) -> bool {
    line.len() >= 3
        && line.chars().all(|character| "-*_=|: ".contains(character))
        && line.contains(['-', '*', '_', '='])
}

fn strip_block_marks(line: &str) -> (Kind, String) {
    let mut rest = line;
    while let Some(quoted) = rest.strip_prefix('>') {
        rest = quoted.trim_start();
    }
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    if (1..=6).contains(&hashes) && rest[hashes..].starts_with(' ') {
        return (Kind::Heading, rest.trim_matches(['#', ' ']).to_owned());
    }
    for bullet in ["- ", "* ", "+ ", "• ", "– ", "· "] {
        if let Some(item) = rest.strip_prefix(bullet) {
            let item = item.trim_start();
            let item = ["[ ] ", "[x] ", "[X] "].iter().find_map(|tick| item.strip_prefix(tick)).unwrap_or(item);
            return (Kind::Item, item.to_owned());
        }
    }
    let digits = rest.len() - rest.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    if (1..=3).contains(&digits) && (rest[digits..].starts_with(". ") || rest[digits..].starts_with(") ")) {
        // "1. First" is read "one, first".
        return (Kind::Item, format!("{}, {}", &rest[..digits], rest[digits + 2..].trim_start()));
    }
    if rest.starts_with('|') {
        let cells: Vec<&str> =
            rest.trim_matches('|').split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
        return (Kind::Item, cells.join(", "));
    }
    (Kind::Prose, rest.to_owned())
}

/// Strips what marks up words within a line.
fn strip_inline_marks(line: &str) -> String {
    let mut output = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '\\' => escaped(rest, &mut output),
            '!' if rest.starts_with("![") => link(&rest[1..], &mut output).map(|taken| taken + 1),
            '[' => link(rest, &mut output),
            '<' => tag(rest, &mut output),
            '&' => entity(rest, &mut output),
            '`' => Some(code(rest, &mut output)),
            '*' => emphasis(rest, &output),
            '_' => underscore(rest, &mut output),
            '~' if rest.starts_with("~~") => Some(2),
            _ => None,
        };
        let taken = taken.unwrap_or_else(|| {
            output.push(first);
            first.len_utf8()
        });
        rest = &rest[taken..];
    }
    output
}

// Each of these reads one mark at the beginning of `rest`, writes what it says, and returns how many bytes it took;
// None where it is no mark.

fn escaped(rest: &str, output: &mut String) -> Option<usize> {
    let character = rest[1..].chars().next().filter(char::is_ascii_punctuation)?;
    output.push(character);
    Some(2)
}

fn link(rest: &str, output: &mut String) -> Option<usize> {
    let close = rest.find(']')?;
    let label = &rest[1..close];
    let after = &rest[close + 1..];
    if after.starts_with('(')
        && let Some(end) = after.find(')').filter(|end| *end <= LONGEST_TAG)
    {
        output.push_str(&strip_inline_marks(label));
        return Some(close + 1 + end + 1);
    }
    // A footnote's mark or a citation.
    let is_note = label.starts_with('^') || (!label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()));
    is_note.then_some(close + 1)
}

fn tag(rest: &str, output: &mut String) -> Option<usize> {
    let end = rest.find('>').filter(|end| *end <= LONGEST_TAG)?;
    let inner = &rest[1..end];
    if inner.contains("://") || (inner.contains('@') && !inner.contains(' ')) {
        output.push_str(inner);
        return Some(end + 1);
    }
    if !inner.starts_with(|character: char| character.is_ascii_alphabetic() || "/!".contains(character)) {
        return None;
    }
    if inner.starts_with("br") {
        output.push(' ');
    }
    Some(end + 1)
}

fn entity(rest: &str, output: &mut String) -> Option<usize> {
    const ENTITIES: [(&str, &str); 8] = [
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&#39;", "'"),
        ("&nbsp;", " "),
        ("&mdash;", "—"),
    ];
    let (name, text) = ENTITIES.iter().find(|(name, _)| rest.starts_with(name))?;
    output.push_str(text);
    Some(name.len())
}

/// Code in a sentence is a name: its words are spoken, its signs are not.
fn code(rest: &str, output: &mut String) -> usize {
    let ticks = rest.len() - rest.trim_start_matches('`').len();
    let close = rest[ticks..].find(&rest[..ticks]);
    if let Some(length) = close {
        let words = rest[ticks..ticks + length].replace("()", "").replace(['_', '{', '}', '<', '>', ';', '"'], " ");
        output.push_str(words.trim());
    }
    ticks + close.map_or(0, |length| length + ticks)
}

fn emphasis(rest: &str, output: &str) -> Option<usize> {
    let stars = rest.len() - rest.trim_start_matches('*').len();
    let inner = &rest[stars..];
    if inner.starts_with(char::is_whitespace) || inner.is_empty() {
        // A multiplication sign, or the end of something.
        return if output.ends_with(' ') && !inner.is_empty() { None } else { Some(stars) };
    }
    if stars == 1
        && let Some(length) = inner.find('*').filter(|at| !inner[at + 1..].starts_with('*'))
        && is_direction(output, &inner[..length], &inner[length + 1..])
    {
        return Some(stars + length + 1);
    }
    Some(stars)
}

/// Whether `*inner*` says what somebody does, and is no stressed word.
fn is_direction(before: &str, inner: &str, after: &str) -> bool {
    let first = inner.split(|character: char| !character.is_alphabetic()).find(|word| !word.is_empty());
    let Some(first) = first.map(str::to_lowercase) else { return true };
    if DIRECTIONS.contains(&first.as_str()) {
        return true;
    }
    let words = inner.split_whitespace().count();
    let verb = (first.ends_with('s') || first.ends_with("ing")) && !NO_VERBS.contains(&first.as_str());
    if words >= 2 && verb {
        return true;
    }
    // Alone between sentences.
    let begins = before.trim_end().chars().next_back().is_none_or(|character| ".!?…\"”:".contains(character));
    let ends = after.trim_start().chars().next().is_none_or(char::is_uppercase);
    begins && ends && (words >= 2 || inner.chars().all(char::is_lowercase))
}

/// Stress at a word's edge; a blank within a name.
fn underscore(rest: &str, output: &mut String) -> Option<usize> {
    let marks = rest.len() - rest.trim_start_matches('_').len();
    let inside = output.ends_with(char::is_alphanumeric) && rest[marks..].starts_with(char::is_alphanumeric);
    // Addresses keep theirs.
    let word = output.rsplit(char::is_whitespace).next().unwrap_or_default();
    if inside
        && (word.contains("://") || word.contains('@') || rest[..rest.find(' ').unwrap_or(rest.len())].contains('@'))
    {
        return None;
    }
    if inside {
        output.push(' ');
    }
    Some(marks)
}
