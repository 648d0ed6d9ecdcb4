//! Several characters in one call, in paused time.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::session::event::Turn;
use crate::session::settings::TurnTaking;

const TRIO: [&str; 3] = ["olivia-001", "max-001", "zoe-001"];

async fn call(house: &House, characters: &[&str], turn_taking: TurnTaking) -> Client {
    let character_ids = characters.iter().map(|id| (*id).to_owned()).collect();
    let settings = Settings { turn_taking, ..Settings::default() };
    house.open_with(Opening { character_ids, settings, ..opening() }).await
}

/// Everything up to the end of so many replies.
async fn replies(client: &mut Client, count: usize) -> Vec<(Duration, Output)> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.extend(client.until(is_complete).await);
    }
    all
}

/// Times without sound between one reply's last sample and the next one's first, at a client that plays what comes.
fn gaps(all: &[(Duration, Output)]) -> Vec<Duration> {
    let mut gaps = Vec::new();
    let mut last: Option<(Turn, Duration)> = None;
    for (at, output) in all {
        let Output::Audio(piece) = output else { continue };
        let begins = match last {
            Some((turn, ends)) if turn != piece.turn => {
                assert!(*at + Duration::from_millis(1) >= ends, "two at once: {turn:?} ends {ends:?}, next {at:?}");
                gaps.push(at.saturating_sub(ends));
                ends.max(*at)
            }
            Some((_, ends)) => ends.max(*at),
            None => *at,
        };
        last = Some((piece.turn, begins + piece.audio.duration()));
    }
    gaps
}

/// Replies of 2 to 40 words, of a model that takes up to 0.7 s for its first and a voice that takes up to 0.4 s.
#[tokio::test(start_paused = true)]
async fn speakers_follow_each_other_without_a_pause() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut all = Vec::new();
    for round in 0..20 {
        let millis = |rng: &mut StdRng, range| Duration::from_millis(rng.random_range(range));
        let mut house = House::new(&[]);
        let first_delay = millis(&mut rng, 80..400);
        house.speech = Arc::new(FakeSpeech { first_delay, ..FakeSpeech::default() });
        let mut say = |last: &str| {
            let words = ["harbour"; 40][..rng.random_range(2..40)].join(" ");
            house.chat.say(&format!("{words}. {last}"), millis(&mut rng, 150..700), millis(&mut rng, 10..40));
        };
        if round % 2 == 0 {
            // All answer twice.
            (0..6).for_each(|_| say("So it is."));
            let mut client = call(&house, &TRIO, TurnTaking::All).await;
            for _ in 0..2 {
                client.say("What do you all say?").await;
                all.push(gaps(&replies(&mut client, 3).await));
            }
        } else {
            // One calls on the next.
            ["Max, and you?", "Zoe, and you?", "Olivia, and you?", "So it is."].into_iter().for_each(&mut say);
            let mut client = call(&house, &TRIO, TurnTaking::Natural).await;
            client.say("Olivia, what do you say?").await;
            all.push(gaps(&replies(&mut client, 4).await));
        }
    }
    let all: Vec<Duration> = all.concat();
    assert_eq!(all.len(), 10 * 4 + 10 * 3);
    let short = all.iter().filter(|gap| **gap <= Duration::from_millis(150)).count();
    assert!(short * 10 >= all.len() * 8, "{short} of {} speaker changes within 150 ms: {all:?}", all.len());
}

#[tokio::test(start_paused = true)]
async fn who_begins_to_speak_for_somebody_else_is_cut_there() {
    let house = House::new(&[]);
    let quick = Duration::from_millis(10);
    house.chat.say("Olivia: I think so, yes.\nMax: I do not. Not at all. Never.", quick, quick);
    house.chat.say("I do not.", quick, quick);
    let mut client = call(&house, &TRIO[..2], TurnTaking::Mention).await;
    client.say("Olivia and Max, is it so?").await;
    let all = replies(&mut client, 2).await;
    let texts: Vec<&str> = all
        .iter()
        .filter_map(|(_, it)| if let Output::TextDone { text, .. } = it { Some(text.as_str()) } else { None })
        .collect();
    assert_eq!(texts, ["I think so, yes.", "I do not."]);
    let spoken: Vec<String> = house.speech.asked.lock().unwrap().iter().map(|asked| asked.text.clone()).collect();
    assert!(!spoken.concat().contains("Max"), "{spoken:?}");
    assert_eq!(house.chat.load.now(), 0, "the model was stopped");
    let asked = house.chat.asked.lock().unwrap()[1].messages.clone();
    assert_eq!(asked.last().unwrap().content, "Olivia and Max, is it so?\nOlivia: I think so, yes.");
    assert!(asked[0].content.starts_with("You are Max."), "{}", asked[0].content);
}

#[tokio::test(start_paused = true)]
async fn they_do_not_call_on_each_other_for_ever() {
    let house = House::new(&[]);
    let quick = Duration::from_millis(10);
    for _ in 0..5 {
        house.chat.say("I think so. Max, and you?", quick, quick);
        house.chat.say("I think not. Olivia, and you?", quick, quick);
    }
    let mut client = call(&house, &TRIO, TurnTaking::Mention).await;
    for user_turn in 1..=2 {
        client.say("Olivia, what do you think?").await;
        let all = client.for_a_while(Duration::from_mins(2)).await;
        assert_eq!(all.iter().filter(|it| is_complete(it)).count(), 4, "user turn {user_turn}");
        assert!(matches!(
            all.last(),
            Some(Output::SpeakerChanged { character_id: None } | Output::MessageSaved { .. })
        ));
    }
}
