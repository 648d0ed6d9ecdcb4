use super::*;

fn segment(text: &str, start: f64, end: f64) -> Segment {
    Segment {
        text: text.into(),
        start: Duration::from_secs_f64(start),
        end: Duration::from_secs_f64(end),
        words: Vec::new(),
        log_probability: 0.0,
        no_speech: 0.0,
    }
}

#[test]
fn subtitles_are_numbered_and_stamped() {
    let segments = [segment(" Hello.", 0.0, 1.5), segment("Bye.", 3661.25, 3662.0)];
    assert_eq!(
        subtitles(&segments, ","),
        "1\n00:00:00,000 --> 00:00:01,500\nHello.\n\n2\n01:01:01,250 --> 01:01:02,000\nBye.\n\n"
    );
}
