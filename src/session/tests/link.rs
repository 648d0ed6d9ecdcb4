//! A link whose packets are late, each by another time.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::session::settings::AudioFormat;

const STORY: &str = "One day a very small ship came in from the sea. Nobody on the quay had ever seen it before. It \
                     brought two letters, and a box. Who had sent them? The harbour master did not know.";

/// One reply, as it leaves the house.
async fn a_reply(patch: SettingsPatch) -> Vec<(Duration, AudioPiece)> {
    let house = House::new(&[]);
    house.chat.say(STORY, Duration::from_millis(200), Duration::from_millis(10));
    let mut client = house.open().await;
    client.ask(Input::Settings(patch)).await;
    client.say("Tell me a story").await;
    let all = client.until(is_complete).await;
    let piece = |(at, output)| if let Output::Audio(piece) = output { Some((at, piece)) } else { None };
    let pieces: Vec<_> = all.into_iter().filter_map(piece).collect();
    assert_eq!(dry(&pieces, Duration::ZERO, Duration::ZERO, 0), Duration::ZERO, "it is made faster than it is spoken");
    pieces
}

/// How long a listener waits for sound that is late, who begins when so much of it is there. Every piece takes up to
/// `jitter`, and none overtakes another.
fn dry(pieces: &[(Duration, AudioPiece)], buffer: Duration, jitter: Duration, seed: u64) -> Duration {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut arrival, mut received, mut waited) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut begun = None;
    for (left, piece) in pieces {
        arrival = arrival.max(*left + jitter.mul_f64(random.random()));
        received += piece.audio.duration();
        match begun {
            Some(begun) => waited += arrival.saturating_sub(begun + piece.pts + waited),
            None => begun = (received >= buffer).then_some(arrival),
        }
    }
    waited
}

#[tokio::test(start_paused = true)]
async fn at_the_default_lead_a_link_with_200_ms_of_jitter_never_runs_dry() {
    for audio_format in [AudioFormat::Pcm, AudioFormat::Opus] {
        let pieces = a_reply(SettingsPatch { audio_format: Some(audio_format), ..SettingsPatch::default() }).await;
        assert!(pieces.len() > 90, "ten seconds of speech: {}", pieces.len());
        let jitter = Duration::from_millis(200);
        for seed in 0..200 {
            assert_eq!(dry(&pieces, jitter, jitter, seed), Duration::ZERO, "{audio_format:?}, seed {seed}");
        }
        let worse = (0..200).filter(|seed| dry(&pieces, jitter, 20 * jitter, *seed) > Duration::ZERO).count();
        assert!(worse > 150, "what is later than the lead is heard as a gap: {worse}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_longer_lead_carries_over_more() {
    let pieces = a_reply(SettingsPatch { lead_ms: Some(1_000), ..SettingsPatch::default() }).await;
    let jitter = Duration::from_millis(800);
    for seed in 0..200 {
        assert_eq!(dry(&pieces, jitter, jitter, seed), Duration::ZERO, "seed {seed}");
    }
}
