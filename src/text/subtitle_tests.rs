use super::*;

const CUES: [Cue; 3] = [
    Cue { start: Duration::ZERO, end: Duration::from_millis(1_500), text: " Hello." },
    Cue { start: Duration::from_secs(2), end: Duration::from_secs(3), text: " " },
    Cue { start: Duration::from_millis(3_661_250), end: Duration::from_hours(1), text: "a --> b\n\n<i> & c" },
];

#[test]
fn cues_are_numbered_and_stamped() {
    assert_eq!(
        srt(CUES),
        "1\n00:00:00,000 --> 00:00:01,500\nHello.\n\n2\n01:01:01,250 --> 01:01:01,250\na → b <i> & c\n\n"
    );
}

#[test]
fn webvtt_has_a_header_a_point_and_no_markup() {
    assert_eq!(
        vtt(CUES),
        "WEBVTT\n\n1\n00:00:00.000 --> 00:00:01.500\nHello.\n\n\
         2\n01:01:01.250 --> 01:01:01.250\na --&gt; b &lt;i&gt; &amp; c\n\n"
    );
    assert_eq!(vtt([]), "WEBVTT\n\n");
}
