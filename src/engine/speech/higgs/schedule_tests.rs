use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::nn::higgs::Segment;
use crate::provider::Urgency;

const SLOTS: usize = 4;
const ROUNDS: u64 = 10_000;

fn prompt(ids: impl IntoIterator<Item = u32>) -> Arc<Prompt> {
    Arc::new(Prompt::new([Segment::Text(ids.into_iter().collect())]))
}

fn ids(prompt: &Prompt) -> Vec<u32> {
    let texts = prompt.segments().iter().filter_map(|segment| match segment {
        Segment::Text(ids) => Some(ids.as_slice()),
        Segment::Audio(_) => None,
    });
    texts.flatten().copied().collect()
}

/// A beginning that voices share, and an end that is nobody else's.
fn voice(random: &mut StdRng, own: u32) -> Arc<Prompt> {
    let voice = random.random_range(0..3_u32);
    let length = [5, 40, 400][voice as usize];
    let shared = (0..random.random_range(1..=length)).map(|position| 1000 * voice + position);
    prompt(shared.chain([own; 3]))
}

/// A model whose sound is what its slot has read last.
struct Fake(Vec<Vec<u32>>);

impl Fake {
    /// Carries out a plan as the engine does; gives each speaker's sound.
    fn step(&mut self, schedule: &mut Schedule<u32>, plan: Plan) -> Vec<(Ticket, u32)> {
        let sounds = plan.speaking.into_iter().map(|ticket| {
            let prompt = ids(&schedule.prompt(ticket).unwrap());
            let memory = &mut self.0[ticket.slot];
            assert_eq!(memory[..prompt.len()], prompt, "slot {} speaks after another prompt", ticket.slot);
            let sound = memory[prompt.len() - 1];
            memory.push(u32::MAX);
            (ticket, sound)
        });
        let sounds = sounds.collect();
        if let Some(Reading { ticket, prefix, most }) = plan.reading {
            let slot = ticket.slot;
            if let Some(Prefix { from, positions }) = prefix {
                self.0[slot] = self.0[from][..positions].to_vec();
            }
            let prompt = ids(&schedule.prompt(ticket).unwrap());
            let memory = &mut self.0[slot];
            let held = memory.len();
            memory.extend_from_slice(&prompt[held..prompt.len().min(held + most)]);
            schedule.holds(ticket, memory.len());
        }
        sounds
    }
}

/// Ten thousand random lives of a schedule: whoever speaks has read its own prompt and nothing else, and in the end
/// every slot is free again.
#[test]
fn no_slot_leaks_and_no_row_hears_anothers_audio() {
    let (mut spoken, mut copied, mut evicted) = (0, 0, 0);
    for seed in 0..ROUNDS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut schedule = Schedule::new(SLOTS);
        let mut model = Fake(vec![Vec::new(); SLOTS]);
        let mut alive: BTreeMap<u32, Ticket> = BTreeMap::new();
        for own in 0..30_u32 {
            let own = 1_000_000 + own;
            let now = Duration::from_millis(u64::from(own));
            let any = |random: &mut StdRng, alive: &BTreeMap<u32, Ticket>| {
                let index = random.random_range(0..alive.len().max(1));
                alive.iter().nth(index).map(|(own, ticket)| (*own, *ticket))
            };
            match random.random_range(0..10) {
                0..=3 => {
                    let urgency = if random.random() { Urgency::First } else { Urgency::Later };
                    let prompt = voice(&mut random, own);
                    match schedule.admit(prompt, Playback::new(now, urgency), own) {
                        Ok(ticket) => assert!(alive.insert(own, ticket).is_none()),
                        Err(_) => assert_eq!(alive.len(), SLOTS, "seed {seed}: a slot has leaked"),
                    }
                }
                4 => {
                    if let Some((own, ticket)) = any(&mut random, &alive) {
                        assert_eq!(schedule.finish(ticket), Some(own));
                        assert_eq!(schedule.finish(ticket), None);
                        alive.remove(&own);
                    }
                }
                5 => {
                    if let Some((own, _)) = any(&mut random, &alive) {
                        assert_eq!(schedule.evict(|work| *work == own), [own]);
                        alive.remove(&own);
                        evicted += 1;
                    }
                }
                6 => {
                    if let Some((own, ticket)) = any(&mut random, &alive) {
                        schedule.go_on(ticket, voice(&mut random, own));
                    }
                }
                _ => {
                    let plan = schedule.plan(now);
                    copied += u32::from(plan.reading.and_then(|it| it.prefix).is_some_and(|it| it.positions > 0));
                    for (ticket, sound) in model.step(&mut schedule, plan) {
                        assert_eq!(alive.get(&sound), Some(&ticket), "seed {seed}: somebody else's audio");
                        schedule.spoke(ticket, 1, now);
                        spoken += 1;
                    }
                }
            }
        }
        assert_eq!(schedule.works().count(), alive.len());
        for (own, ticket) in alive {
            assert_eq!(schedule.finish(ticket), Some(own));
        }
        assert!(schedule.is_empty());
        let now = Duration::ZERO;
        for own in 0..SLOTS as u32 {
            assert!(schedule.admit(prompt([own]), Playback::new(now, Urgency::Later), own).is_ok());
        }
        assert!(schedule.is_full());
    }
    assert!(spoken > 10_000 && copied > 1000 && evicted > 1000, "{spoken} {copied} {evicted}");
}

fn later() -> Playback {
    Playback::new(Duration::ZERO, Urgency::Later)
}

#[test]
fn a_voice_is_read_once_and_copied() {
    let mut schedule = Schedule::new(3);
    let recording = || 0..300_u32;
    let first = schedule.admit(prompt(recording().chain([1])), later(), ()).unwrap();
    let reading = schedule.plan(Duration::ZERO).reading.unwrap();
    assert_eq!(reading, Reading { ticket: first, prefix: Some(Prefix { from: 0, positions: 0 }), most: CHUNKS[0] });
    schedule.holds(first, 301);
    assert_eq!(schedule.plan(Duration::ZERO), Plan { reading: None, speaking: vec![first] });

    // Another of the same voice, while the first speaks: by a copy, and in smaller chunks.
    let second = schedule.admit(prompt(recording().chain([2])), later(), ()).unwrap();
    let reading = schedule.plan(Duration::ZERO).reading.unwrap();
    assert_eq!(reading, Reading { ticket: second, prefix: Some(Prefix { from: 0, positions: 300 }), most: CHUNKS[1] });
    schedule.holds(second, 301);
    // The next piece of its text stays in its slot and keeps the recording.
    schedule.go_on(second, prompt(recording().chain([3])));
    let reading = schedule.plan(Duration::ZERO).reading.unwrap();
    assert_eq!(reading.prefix, Some(Prefix { from: second.slot, positions: 300 }));
    // A lost memory is read again from the beginning, or copied.
    schedule.holds(second, 0);
    assert_eq!(schedule.plan(Duration::ZERO).reading.unwrap().prefix, Some(Prefix { from: 0, positions: 300 }));
    // When both are over, the voice comes back to where it was.
    schedule.finish(first);
    schedule.finish(second);
    let third = schedule.admit(prompt(recording().chain([4])), later(), ()).unwrap();
    assert_eq!(third.slot, first.slot);
}

#[test]
fn a_stranger_takes_the_slot_that_was_of_use_the_longest_ago() {
    let mut schedule = Schedule::new(2);
    for voice in 0..2 {
        let ticket = schedule.admit(prompt(voice * 1000..voice * 1000 + 100), later(), ()).unwrap();
        assert_eq!(ticket.slot as u32, voice);
        schedule.holds(ticket, 100);
        schedule.finish(ticket);
    }
    let stranger = schedule.admit(prompt(5000..5100), later(), ()).unwrap();
    assert_eq!(stranger.slot, 0);
}

#[test]
fn the_urgent_read_first_and_keep_nobody_waiting_for_ever() {
    let mut schedule = Schedule::new(2);
    let patient = schedule.admit(prompt(0..10_000), later(), ()).unwrap();
    let urgent = schedule.admit(prompt(20_000..30_000), Playback::new(Duration::ZERO, Urgency::First), ()).unwrap();
    let readers: Vec<Ticket> =
        (0..8).filter_map(|_| schedule.plan(Duration::ZERO).reading.map(|reading| reading.ticket)).collect();
    assert_eq!(readers.iter().filter(|ticket| **ticket == urgent).count(), 6);
    assert_eq!(readers.iter().filter(|ticket| **ticket == patient).count(), 2);
    assert_eq!(readers[0], urgent);
}

#[test]
fn a_prompt_is_read_in_smaller_chunks_while_a_listener_runs_dry() {
    let mut schedule = Schedule::new(2);
    let speaker = schedule.admit(prompt([1]), later(), ()).unwrap();
    schedule.holds(speaker, 1);
    schedule.admit(prompt(0..5000), later(), ()).unwrap();
    let most = |schedule: &mut Schedule<()>, now| schedule.plan(now).reading.unwrap().most;
    assert_eq!(most(&mut schedule, Duration::ZERO), CHUNKS[1]);
    schedule.spoke(speaker, 25, Duration::ZERO);
    assert_eq!(most(&mut schedule, Duration::from_millis(700)), CHUNKS[1]);
    assert_eq!(most(&mut schedule, Duration::from_millis(800)), CHUNKS[2]);
}
