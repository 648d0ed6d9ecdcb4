//! A text on its way to Higgs: punctuation that it knows, sounds by their markers, and an end.
//!
//! The model was trained on texts that went through these rules of Boson's own generation script. On top of them,
//! nothing that somebody wrote can become a marker of the prompt.

/// Sounds by the names that people write in brackets, and the markers that the model knows.
const SOUNDS: [(&str, &str); 11] = [
    ("[laugh]", "<SE>[Laughter]</SE>"),
    ("[humming start]", "<SE_s>[Humming]</SE_s>"),
    ("[humming end]", "<SE_e>[Humming]</SE_e>"),
    ("[music start]", "<SE_s>[Music]</SE_s>"),
    ("[music end]", "<SE_e>[Music]</SE_e>"),
    ("[music]", "<SE>[Music]</SE>"),
    ("[sing start]", "<SE_s>[Singing]</SE_s>"),
    ("[sing end]", "<SE_e>[Singing]</SE_e>"),
    ("[applause]", "<SE>[Applause]</SE>"),
    ("[cheering]", "<SE>[Cheering]</SE>"),
    ("[cough]", "<SE>[Cough]</SE>"),
];

/// With one of these a text is at its end.
const ENDS: [&str; 9] = [".", "!", "?", ",", ";", "\"", "'", "</SE>", "</SE_e>"];

/// The text as the model is given it. Empty where there is nothing to say.
pub fn fit_to_speak(text: &str) -> String {
    let text = disarm(&punctuate(text));
    let text = text.replace("°F", " degrees Fahrenheit").replace("°C", " degrees Celsius").replace('°', " degrees ");
    let text = SOUNDS.iter().fold(text, |text, (written, marker)| text.replace(written, marker));
    let lines = text.lines().map(one_line).filter(|line| !line.is_empty());
    let mut text = lines.collect::<Vec<_>>().join("\n");
    if !text.contains(char::is_alphanumeric) {
        return String::new();
    }
    if !ENDS.iter().any(|end| text.ends_with(end)) {
        text.push('.');
    }
    text
}

/// A scene or the description of a voice, as the model is given it.
pub fn description(text: &str) -> String {
    one_line(&disarm(text))
}

/// Whether it hums, sings or plays: then it may repeat itself.
pub fn is_musical(text: &str) -> bool {
    ["[Humming]", "[Music]", "[Singing]"].iter().any(|sound| text.contains(sound))
}

/// Breaks the prompt's markers, which all begin alike.
fn disarm(text: &str) -> String {
    text.replace("<|", "< |")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The ASCII for what the model has seldom seen. Brackets would be read out as a pause too many.
fn punctuate(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '，' => out.push_str(", "),
            '、' => out.push(','),
            '。' | '·' => out.push('.'),
            '：' => out.push(':'),
            '；' => out.push(';'),
            '？' => out.push('?'),
            '！' => out.push('!'),
            '【' => out.push('['),
            '】' => out.push(']'),
            '《' => out.push('<'),
            '》' => out.push('>'),
            '“' | '”' | '「' | '」' | '『' | '』' => out.push('"'),
            '‘' | '’' => out.push('\''),
            '…' => out.push_str("..."),
            '—' => out.push_str(" - "),
            '(' | ')' | '（' | '）' => out.push(' '),
            other => out.push(other),
        }
    }
    out
}
