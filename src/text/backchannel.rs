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

/// Whether most of what was heard is what was just `said` by a loudspeaker: its words stand there in the same order.
pub fn is_echo(heard: &str, said: &str) -> bool {
    let heard: Vec<String> = words(heard).collect();
    let said: Vec<String> = words(said).collect();
    !heard.is_empty() && common(&heard, &said) * 5 >= heard.len() * 3
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
