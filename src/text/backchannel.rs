//! What a listener says without wanting the floor: "mhm", "yeah", a cough that became a syllable.

/// Sounds and words of agreement, folded. A text of nothing else is no turn of its own while somebody speaks.
const BACKCHANNEL: [&str; 38] = [
    "mhm", "mm", "mmm", "mmhmm", "mm-hmm", "hm", "hmm", "hmmm", "uh", "uhh", "um", "umm", "uhm", "er", "erm", "ah",
    "aha", "oh", "ooh", "huh", "uh-huh", "uhhuh", "ha", "haha", "ahem", "eh", "yeah", "yep", "yup", "ok", "okay",
    "right", "sure", "cough", "coughs", "coughing", "sigh", "sighs",
];

/// Whether there is nothing in the text that asks for the floor.
pub fn is_backchannel(text: &str) -> bool {
    words(text).all(|word| BACKCHANNEL.contains(&word.as_str()))
}

/// As [`likeness`], an echo that was heard to its end; of fewer letters chance makes as much.
const ECHO: (f64, usize) = (0.72, 12);
/// What an echo's first guess has, and in one of fifty places of a text a few other words.
const MISHEARD: f64 = 0.62;

/// Whether most of what was heard is what was just `said` by a loudspeaker: its words stand there in the same order, or
/// nearly all of its letters.
pub fn is_echo(heard: &str, said: &str) -> bool {
    let (alike, letters) = ECHO;
    repeats_words(heard, said) || spelled(heard).len() >= letters && likeness(heard, said) >= alike
}

/// Whether a guess may be an echo of what was `said`, whose words were misheard.
pub fn may_be_echo(guess: &str, said: &str) -> bool {
    repeats_words(guess, said) || likeness(guess, said) >= MISHEARD
}

fn repeats_words(heard: &str, said: &str) -> bool {
    let heard: Vec<String> = words(heard).collect();
    let said: Vec<String> = words(said).collect();
    !heard.is_empty() && common(&heard, &said) * 5 >= heard.len() * 3
}

/// How much of what was heard stands somewhere in what was `said`, letter by letter: 1 is all of it.
fn likeness(heard: &str, said: &str) -> f64 {
    let (heard, said) = (spelled(heard), spelled(said));
    // By edit distance; it may begin and end anywhere in what was said.
    let mut distances = vec![0; said.len() + 1];
    for (row, letter) in heard.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut distances[0], row + 1);
        for (at, other) in said.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = distances[at + 1];
            distances[at + 1] = replaced.min(diagonal + 1).min(distances[at] + 1);
        }
    }
    let least = distances.into_iter().min().unwrap_or_default();
    if heard.is_empty() { 0.0 } else { 1.0 - least as f64 / heard.len() as f64 }
}

fn spelled(text: &str) -> Vec<char> {
    words(text).flat_map(|word| word.chars().filter(|c| c.is_alphanumeric()).collect::<Vec<_>>()).collect()
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let is_part = |c: char| c.is_alphanumeric() || c == '-';
    let words = text.split(move |c| !is_part(c) && c != '\'' && c != '’').map(|word| word.trim_matches('-'));
    words.filter(|word| !word.is_empty()).map(|word| word.replace(['\'', '’'], "").to_lowercase())
}

/// Length of the longest common subsequence.
fn common(left: &[String], right: &[String]) -> usize {
    let mut lengths = vec![0; right.len() + 1];
    for word in left {
        let mut diagonal = 0;
        for (at, other) in right.iter().enumerate() {
            let above = lengths[at + 1];
            lengths[at + 1] = if word == other { diagonal + 1 } else { above.max(lengths[at]) };
            diagonal = above;
        }
    }
    lengths[right.len()]
}

#[cfg(test)]
#[path = "backchannel_tests.rs"]
mod tests;
