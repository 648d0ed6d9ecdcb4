//! The engine on networks that fail, that count what they read, and that take a device's time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;

use super::engine_tests::{OPTIONS, cloned, fault, folders, heard, request};
use super::model::Network;
use super::*;
use crate::engine::device::DeviceChoice;
use crate::engine::precedence::Precedence;
use crate::nn::higgs::{Codes, Higgs, HiggsConfig, HiggsError, Prompt, Speaker};
use crate::provider::{ProviderError, SpeakRequest, SpeechSynthesizer, Urgency};

/// What a network does, as tests see it.
#[derive(Clone, Debug, PartialEq)]
enum Call {
    Reset {
        slot: usize,
        length: usize,
    },
    Copy {
        from: usize,
        to: usize,
        length: usize,
    },
    Read {
        slot: usize,
        positions: usize,
    },
    Step {
        slots: Vec<usize>,
    },
    /// After a step: how many columns each of its speakers has.
    Spoken {
        columns: Vec<usize>,
    },
}

/// What becomes of a call.
type Rule = Box<dyn FnMut(&Call) -> Result<(), HiggsError> + Send>;

/// The tiny model, of which `rule` lets every call through or not.
struct Ruled {
    higgs: Higgs,
    rule: Arc<Mutex<Rule>>,
}

impl Ruled {
    fn ask(&self, call: &Call) -> Result<(), HiggsError> {
        // A rule may panic.
        (self.rule.lock().unwrap_or_else(std::sync::PoisonError::into_inner))(call)
    }
}

impl Network for Ruled {
    fn config(&self) -> &HiggsConfig {
        self.higgs.config()
    }

    fn slots(&self) -> usize {
        self.higgs.slots()
    }

    fn positions(&self) -> usize {
        self.higgs.positions()
    }

    fn reset(&mut self, slot: usize, length: usize) -> Result<(), HiggsError> {
        self.ask(&Call::Reset { slot, length })?;
        self.higgs.reset(slot, length)
    }

    fn copy_prefix(&mut self, from: usize, to: usize, length: usize) -> Result<(), HiggsError> {
        self.ask(&Call::Copy { from, to, length })?;
        self.higgs.copy_prefix(from, to, length)
    }

    fn prefill(&mut self, slot: usize, prompt: &Prompt, most: usize) -> Result<usize, HiggsError> {
        let positions = (prompt.len() - self.higgs.length(slot)).min(most);
        self.ask(&Call::Read { slot, positions })?;
        self.higgs.prefill(slot, prompt, most)
    }

    fn step(&mut self, speakers: &mut [Speaker<'_>]) -> Result<(), HiggsError> {
        let mut slots: Vec<usize> = speakers.iter().map(|speaker| speaker.slot).collect();
        slots.sort_unstable();
        self.ask(&Call::Step { slots })?;
        self.higgs.step(speakers)?;
        let columns = speakers.iter().map(|speaker| speaker.utterance.columns()).collect();
        self.ask(&Call::Spoken { columns })
    }
}

/// The engine, and the rule of its network, which at first lets everything through.
fn ruled(options: HiggsOptions, precedence: Precedence) -> (HiggsEngine, Arc<Mutex<Rule>>) {
    let nothing: Rule = Box::new(|_| Ok(()));
    let rule = Arc::new(Mutex::new(nothing));
    let network = {
        let rule = Arc::clone(&rule);
        move |higgs| Box::new(Ruled { higgs, rule }) as Box<dyn Network>
    };
    let (model, codec) = folders();
    let loaded =
        HiggsEngine::load_with("higgs", (&model, &codec), DeviceChoice::Cpu, options, precedence, network).unwrap();
    (loaded, rule)
}

fn set(rule: &Mutex<Rule>, new: impl FnMut(&Call) -> Result<(), HiggsError> + Send + 'static) {
    *rule.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Box::new(new);
}

/// As candle tells it of a card.
fn no_memory() -> HiggsError {
    HiggsError::Candle(candle_core::Error::Msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".to_owned()))
}

fn out_of_memory() -> ProviderError {
    ProviderError::OutOfMemory { what: "higgs".to_owned() }
}

const LONG: &str = "Good morning, how are you?";

#[tokio::test]
async fn a_prompt_for_which_there_is_no_memory_ends_its_own_request_alone() {
    let (engine, rule) = ruled(OPTIONS, Precedence::default());
    let alone = heard(&engine, request(LONG, "clara")).await;
    let mut speaking = engine.speak(request(LONG, "clara"));
    let first = speaking.next().await.unwrap().unwrap();
    set(&rule, |call| if matches!(call, Call::Read { .. }) { Err(no_memory()) } else { Ok(()) });
    for _ in 0..5 {
        assert_eq!(fault(&engine, request("Hello.", "james")).await, out_of_memory());
    }
    set(&rule, |_| Ok(()));
    let mut all = first.audio.as_slice().to_vec();
    all.extend(
        speaking
            .flat_map(|chunk| futures::stream::iter(chunk.unwrap().audio.as_slice().to_vec()))
            .collect::<Vec<_>>()
            .await,
    );
    assert!(all == alone, "the other request was changed");
    assert!(!heard(&engine, request("Hello.", "james")).await.is_empty());
}

#[tokio::test]
async fn a_step_for_which_there_is_no_memory_ends_whom_it_was_for() {
    let (engine, rule) = ruled(OPTIONS, Precedence::default());
    let voices = ["clara", "james", "olive"];
    let alone = join_all(voices.map(|voice| heard(&engine, request(LONG, voice)))).await;
    // Slot 1 never has the memory for a step, alone or with others.
    set(&rule, |call| match call {
        Call::Step { slots } if slots.contains(&1) => Err(no_memory()),
        _ => Ok(()),
    });
    let asked = voices.map(|voice| async { engine.speak(request(LONG, voice)).collect::<Vec<_>>().await });
    let mut failed = 0;
    for (items, alone) in join_all(asked).await.into_iter().zip(&alone) {
        match items.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(chunks) => {
                let samples: Vec<f32> = chunks.iter().flat_map(|chunk| chunk.audio.as_slice().to_vec()).collect();
                assert!(samples == *alone, "who had memory was changed");
            }
            Err(error) => {
                assert_eq!(error, out_of_memory());
                failed += 1;
            }
        }
    }
    assert_eq!(failed, 1);
    // The slot is there for others as soon as there is memory.
    set(&rule, |_| Ok(()));
    let again = join_all(voices.map(|voice| heard(&engine, request(LONG, voice)))).await;
    assert!(again == alone);
}

#[tokio::test]
async fn what_fails_together_and_goes_alone_ends_nobody() {
    let (engine, rule) = ruled(OPTIONS, Precedence::default());
    let voices = ["clara", "james", "olive"];
    let alone = join_all(voices.map(|voice| heard(&engine, request(LONG, voice)))).await;
    set(&rule, |call| match call {
        Call::Step { slots } if slots.len() > 1 => Err(no_memory()),
        _ => Ok(()),
    });
    assert!(join_all(voices.map(|voice| heard(&engine, request(LONG, voice)))).await == alone);
}

#[tokio::test]
async fn a_panic_of_the_network_is_the_end_of_one_request() {
    let (engine, rule) = ruled(OPTIONS, Precedence::default());
    let fuse = Arc::new(AtomicBool::new(true));
    let once = Arc::clone(&fuse);
    set(&rule, move |call| {
        assert!(!(matches!(call, Call::Step { .. }) && once.swap(false, Ordering::SeqCst)), "scripted");
        Ok(())
    });
    let failed = ProviderError::Failed { what: "higgs".to_owned() };
    assert_eq!(fault(&engine, request("Hello.", "clara")).await, failed);
    assert!(!heard(&engine, request("Hello.", "clara")).await.is_empty());
}

#[tokio::test]
async fn who_leaves_is_in_one_more_step_at_most() {
    let (engine, rule) = ruled(OPTIONS, Precedence::default());
    let long = "A long text that takes a while to say, and then some more of it, and more. ".repeat(30);
    let steps = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&steps);
    set(&rule, move |call| {
        if let Call::Step { slots } = call {
            notes.lock().unwrap().push(slots.clone());
        }
        Ok(())
    });
    let speak = |seed: u64| engine.speak(SpeakRequest { seed: Some(seed), ..request(&long, "clara") });
    let mut streams: Vec<_> = (0..OPTIONS.slots as u64).map(speak).collect();
    for stream in &mut streams {
        assert!(!stream.next().await.unwrap().unwrap().last);
    }
    drop(streams.pop());
    let before = steps.lock().unwrap().len();
    while steps.lock().unwrap().len() < before + 20 {
        for stream in &mut streams {
            assert!(!stream.next().await.unwrap().unwrap().last);
        }
    }
    let after = steps.lock().unwrap().split_off(before);
    let full = after.iter().filter(|slots| slots.len() == OPTIONS.slots).count();
    assert!(full <= 1, "{after:?}");
    assert!(after.iter().skip(full).all(|slots| slots.len() < OPTIONS.slots), "{after:?}");
}

/// Notes what is read and copied.
fn noted(rule: &Mutex<Rule>) -> Arc<Mutex<Vec<Call>>> {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&calls);
    set(rule, move |call| {
        if matches!(call, Call::Read { .. } | Call::Copy { .. }) {
            notes.lock().unwrap().push(call.clone());
        }
        Ok(())
    });
    calls
}

fn read(calls: &[Call]) -> usize {
    calls.iter().map(|call| if let Call::Read { positions, .. } = call { *positions } else { 0 }).sum()
}

#[tokio::test]
async fn the_recording_of_a_voice_is_read_once() {
    let (engine, rule) = ruled(OPTIONS, Precedence::default());
    // Ten seconds: 250 frames, and nine more for the delay and the edges.
    let codes = Codes::from_rows(8, (0..8 * 250).map(|index| index * 7 % 1024).collect()).unwrap();
    engine.enrol(cloned("me", Recording::Codes(codes))).unwrap();
    let calls = noted(&rule);
    let take = || std::mem::take(&mut *calls.lock().unwrap());
    heard(&engine, request("The first sentence.", "me")).await;
    let first = read(&take());
    // The same voice again, in the same slot: its own words and the turn around them.
    heard(&engine, request("Another sentence.", "me")).await;
    let second = read(&take());
    // Two at once: the second's slot gets a copy.
    join_all(["One.", "Two."].map(|text| heard(&engine, request(text, "me")))).await;
    let both = take();
    let copied: Vec<usize> = both
        .iter()
        .filter_map(|call| if let Call::Copy { length, .. } = call { Some(*length) } else { None })
        .collect();
    println!("positions read: {first}, then {second}, then {} for two at once; copied: {copied:?}", read(&both));
    assert!(first > 259, "{first}");
    // A byte a token: the text, its end, and the assistant's turn.
    assert!(second < 60, "{second}");
    assert!(copied.len() == 1 && copied[0] >= 259, "{copied:?}");
    assert!(read(&both) < 2 * 60, "{}", read(&both));
}

/// A card that does one thing at a time. Its clock moves by what it does, so that figures do not depend on the machine
/// that the test runs on.
#[derive(Default)]
struct Card(Mutex<Duration>);

impl Card {
    fn work(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }

    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

/// What a step of all voices takes: five times what reading its weights takes on an H200.
const STEP: Duration = Duration::from_millis(6);
/// 256 positions of a prompt of ours.
const PROMPT: Duration = Duration::from_millis(5);
/// A chunk of 256 tokens of a language model of 8 B at 400 TFLOP/s.
const LANGUAGE_CHUNK: Duration = Duration::from_millis(10);
const LANGUAGE_CHUNKS: usize = 2048 / 256;

/// Columns of codes of which the codec makes the first sound.
const FIRST_SOUND: usize = OPTIONS.chunking.first + OPTIONS.chunking.first_ahead;

/// The waits of four calls for the codes of their first sound, `rounds` times, in the card's time; beside them a
/// language model that reads 2,048 tokens in each round, or none. The codec works apart from the model.
async fn first_audio(language_model: bool, rounds: usize) -> Vec<Duration> {
    let precedence = Precedence::default();
    let (engine, rule) = ruled(HiggsOptions { slots: 4, ..OPTIONS }, precedence.clone());
    for call in 0..4_u32 {
        let codes = Codes::from_rows(8, (0..8 * 125).map(|index| (index * 7 + call) % 1024).collect()).unwrap();
        engine.enrol(cloned(&format!("call {call}"), Recording::Codes(codes))).unwrap();
    }
    let card = Arc::new(Card::default());
    let sounds = Arc::new(Mutex::new(Vec::new()));
    let (busy, heard) = (Arc::clone(&card), Arc::clone(&sounds));
    set(&rule, move |call| {
        match call {
            Call::Read { positions, .. } => busy.work(PROMPT * *positions as u32 / 256),
            Call::Step { .. } => busy.work(STEP),
            Call::Spoken { columns } => {
                let first = columns.iter().filter(|columns| **columns == FIRST_SOUND);
                heard.lock().unwrap().extend(first.map(|_| busy.now()));
            }
            Call::Reset { .. } | Call::Copy { .. } => {}
        }
        Ok(())
    });
    let mut waits = Vec::new();
    for round in 0..rounds {
        // The calls come when the card has just begun with a chunk: the worst moment.
        let (chunk, at_work) = std::sync::mpsc::channel();
        let (calls, have_come) = std::sync::mpsc::channel::<()>();
        let reader = language_model.then(|| {
            let (precedence, card) = (precedence.clone(), Arc::clone(&card));
            std::thread::spawn(move || {
                for number in 0..LANGUAGE_CHUNKS {
                    precedence.give_way();
                    if number == 1 {
                        chunk.send(()).unwrap();
                        have_come.recv().unwrap();
                    }
                    card.work(LANGUAGE_CHUNK);
                }
            })
        });
        if language_model {
            at_work.recv().unwrap();
        }
        let begun = card.now();
        let asked = (0..4).map(|call| {
            engine.speak(SpeakRequest {
                urgency: Urgency::First,
                seed: Some((round * 4 + call) as u64),
                ..request("Well, let me think about that.", &format!("call {call}"))
            })
        });
        let flows: Vec<_> = asked.collect();
        let _ = calls.send(());
        for mut flow in flows {
            flow.next().await.unwrap().unwrap();
        }
        waits.extend(std::mem::take(&mut *sounds.lock().unwrap()).into_iter().map(|at| at.saturating_sub(begun)));
        if let Some(reader) = reader {
            reader.join().unwrap();
        }
    }
    waits.sort_unstable();
    waits
}

/// Whoever waits in silence waits for a chunk of the language model's prompt at most, not for the prompt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_prompt_of_the_language_model_hardly_moves_the_first_audio_of_four_calls() {
    const ROUNDS: usize = 10;
    let alone = first_audio(false, ROUNDS).await;
    let beside = first_audio(true, ROUNDS).await;
    // Hardly a call says less than its first chunk.
    assert!(alone.len() >= 4 * ROUNDS * 9 / 10 && beside.len() == alone.len(), "{} {}", alone.len(), beside.len());
    let p95 = |waits: &[Duration]| waits[waits.len() * 95 / 100];
    let (one, two) = (p95(&alone), p95(&beside));
    println!("p95 first audio of four calls: alone {one:?}, beside a prompt of 2,048 tokens {two:?}");
    println!("medians: {:?}, {:?}", alone[alone.len() / 2], beside[beside.len() / 2]);
    assert!(two.as_secs_f64() <= one.as_secs_f64() * 1.2, "{one:?} to {two:?}");
}
