//! Subtitles as SRT and WebVTT write them.

use std::time::Duration;

/// What is shown from one time to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cue<'a> {
    pub start: Duration,
    pub end: Duration,
    pub text: &'a str,
}

/// SubRip.
pub fn srt<'a>(cues: impl IntoIterator<Item = Cue<'a>>) -> String {
    numbered(cues, ',', |text| text.replace("-->", "→"))
}

/// WebVTT.
pub fn vtt<'a>(cues: impl IntoIterator<Item = Cue<'a>>) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("WEBVTT\n\n{}", numbered(cues, '.', escape))
}

fn numbered<'a>(cues: impl IntoIterator<Item = Cue<'a>>, point: char, escape: impl Fn(&str) -> String) -> String {
    let cue = |(number, cue): (usize, Cue)| {
        // An empty line would end the cue.
        let text = escape(&cue.text.split_whitespace().collect::<Vec<_>>().join(" "));
        let (start, end) = (stamp(cue.start, point), stamp(cue.end.max(cue.start), point));
        format!("{}\n{start} --> {end}\n{text}\n\n", number + 1)
    };
    let spoken = cues.into_iter().filter(|cue| !cue.text.trim().is_empty());
    spoken.enumerate().map(cue).collect()
}

fn stamp(at: Duration, point: char) -> String {
    let (seconds, millis) = (at.as_secs(), at.subsec_millis());
    format!("{:02}:{:02}:{:02}{point}{millis:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
#[path = "subtitle_tests.rs"]
mod tests;
