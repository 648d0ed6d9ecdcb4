use std::iter::repeat_n;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::audio::{Mic, Speech};
use crate::provider::Caller;
use crate::provider::fake::{FakeActivity, FakeHearing};
use crate::session::ear::Heard;
use crate::session::event::Input;
use crate::session::machine::Event;
use crate::session::settings::Settings;
use crate::testing::Babble;

fn of(sources: &[(Source, usize)]) -> Makeup {
    let mut makeup = Makeup::default();
    for source in sources.iter().flat_map(|(source, count)| repeat_n(*source, *count)) {
        makeup.add(source);
    }
    makeup
}

#[test]
fn what_is_mostly_echo_was_said_by_nobody() {
    use Source::{Doubtful, Echo, Voice};
    let verdict = |sources: &[(Source, usize)]| (of(sources).is_echo(), of(sources).is_likely_echo());
    assert_eq!(verdict(&[]), (false, false));
    assert_eq!(verdict(&[(Voice, 4)]), (false, false), "somebody says little");
    assert_eq!(verdict(&[(Voice, 4), (Echo, 2)]), (false, true), "perhaps a coincidence");
    assert_eq!(verdict(&[(Voice, 4), (Echo, 8)]), (true, true), "a reply that began");
    assert_eq!(verdict(&[(Voice, 10), (Echo, 30)]), (false, false), "somebody has spoken, and the reply goes on");
    // The first echo of a microphone.
    assert_eq!(verdict(&[(Voice, 4), (Doubtful, 12)]), (false, true));
    assert_eq!(verdict(&[(Voice, 4), (Doubtful, 12), (Echo, 1)]), (true, true));
    assert_eq!(verdict(&[(Doubtful, 5), (Voice, 4)]), (false, false), "it was like one at its onset only");
    assert_eq!(verdict(&[(Voice, 40), (Doubtful, 9)]), (false, false));
    // A word that ends while it is like one: the next guess, or the pause, tells.
    let word = of(&[(Voice, 2), (Doubtful, 5)]);
    assert!(word.may_be_echo() && !word.is_likely_echo());
    assert!(!of(&[(Doubtful, 5), (Voice, 2)]).may_be_echo());
}

/// What an ear tells of a room with a loudspeaker, 200 ms late, in which replies of this many seconds
/// are played one after the other, and somebody speaks from that second on, for one.
async fn listen(replies: &[u64], speaks: u64) -> Vec<Heard> {
    const STEP: Duration = Duration::from_millis(20);
    let (loopback, playing) = loopback();
    let stt = Arc::new(FakeHearing::new(&["Stop it, please."; 9]));
    let ear = Ear::new(stt, Arc::new(FakeActivity), Settings::default(), Caller::default(), || "u".to_owned(), false);
    let (inbox, requests) = mpsc::channel(8);
    let (turn, mut events) = mpsc::channel(512);
    let task = tokio::spawn(ear.beside(playing).run(requests, turn));
    // Loud enough for the fake detector, as far as it is heard.
    let (mut reply, mut user) = (Babble::new(11), Babble::new(2));
    let mut air: Vec<f32> = vec![0.0; 3200];
    let mut now = Duration::ZERO;
    for seconds in replies {
        // A second of silence follows each.
        for step in 0..(seconds + 1) * 50 {
            let played: Vec<f32> =
                (0..960).map(|_| if step < seconds * 50 { 4.0 * reply.sample() } else { 0.0 }).collect();
            let audio = Speech::new(played.iter().step_by(2).copied().collect());
            if step < seconds * 50 {
                loopback.play(&audio, tokio::time::Instant::now() + STEP);
            }
            air.extend(played.iter().step_by(3).map(|sample| sample.clamp(-1.0, 1.0) / 1.5));
            let is_speaking = now.as_secs() == speaks;
            let said = (0..960).map(|_| if is_speaking { 4.0 * user.sample() } else { 0.0 }).collect::<Vec<_>>();
            let heard = air.drain(..320).zip(said.iter().step_by(3)).map(|(echo, voice)| echo + voice).collect();
            inbox.send(Input::Audio(Mic::new(heard)).into()).await.unwrap();
            tokio::time::sleep(STEP).await;
            now += STEP;
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(inbox);
    task.await.unwrap();
    let mut told = Vec::new();
    while let Some(Event::Heard(heard)) = events.recv().await {
        told.push(heard);
    }
    told
}

#[tokio::test(start_paused = true)]
async fn of_an_echo_nothing_is_told_and_of_who_speaks_over_it_all() {
    let told = listen(&[6, 8], 30).await;
    assert!(told.len() <= 6, "{told:?}");
    let is_silent =
        |heard: &Heard| matches!(heard, Heard::Began { .. } | Heard::Stopped { .. } | Heard::Nothing { .. });
    assert!(told.iter().all(is_silent), "{told:?}");
    let told = listen(&[6, 8], 9).await;
    let at = |heard: &Heard| if let Heard::Final(said) = heard { Some(said.transcription.at.millis()) } else { None };
    let said: Vec<u64> = told.iter().filter_map(at).collect();
    assert!(!said.is_empty() && said.iter().all(|at| (9_500..11_500).contains(at)), "{told:?}");
}
