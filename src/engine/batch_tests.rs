use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

use super::*;

/// A cache as the model sees it. A cell holds its token with all before it, or 0; the slot's generation does not matter,
/// because what the same tokens gave is the same.
struct Cache(Vec<Vec<u64>>);

/// A token's keys and values depend on all tokens up to it.
fn chain(tokens: &[u32]) -> u64 {
    tokens.iter().fold(7, |sum: u64, token| (sum ^ u64::from(*token)).wrapping_mul(0x0100_0000_01b3).rotate_left(17))
}

impl Cache {
    fn new(slots: usize, positions: usize) -> Self {
        Self(vec![vec![0; positions]; slots])
    }

    fn copy(&mut self, copying: Copying) {
        let Copying { from, to, positions } = copying;
        assert_ne!(from, to);
        let copied = self.0[from][..positions].to_vec();
        self.0[to][..positions].copy_from_slice(&copied);
    }

    /// Every row reads all cells before it.
    fn forward(&mut self, slot: usize, start: usize, tokens: &[u32]) {
        for position in 0..start {
            assert_eq!(self.0[slot][position], chain(&tokens[..=position]), "position {position} is another's");
        }
        for position in start..tokens.len() {
            self.0[slot][position] = chain(&tokens[..=position]);
        }
    }

    /// A call that failed half-way may have left anything behind what was there.
    fn fail(&mut self, slot: usize, start: usize, end: usize) {
        self.0[slot][start..end].fill(0);
    }
}

const SLOTS: usize = 4;
const POSITIONS: usize = 120;
const CHUNK: usize = 24;

/// Few prompts begin alike by chance, so they are made of a few common beginnings.
fn prompt(random: &mut StdRng, beginnings: &[Vec<u32>]) -> Vec<u32> {
    let beginning = beginnings.iter().choose(random).unwrap();
    let mut tokens = beginning[..random.random_range(0..=beginning.len())].to_vec();
    tokens.extend((0..random.random_range(1..20)).map(|_| random.random_range(0..3u32)));
    tokens
}

/// One life of a batch: sequences come, read, write, fail, leave and are thrown out.
fn live(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let slots = random.random_range(1..=SLOTS);
    let mut beginnings: Vec<Vec<u32>> = (0..3).map(|_| (0..60).map(|_| random.random_range(0..3)).collect()).collect();
    let mut batch: Batch<u64> = Batch::new(slots);
    let mut cache = Cache::new(slots, POSITIONS);
    // By its name, each sequence's ticket and its tokens as its owner knows them.
    let mut alive: HashMap<u64, (Ticket, Vec<u32>)> = HashMap::new();
    let mut gone: Vec<Ticket> = Vec::new();
    for name in 0..random.random_range(10..60) {
        match random.random_range(0..10) {
            0..=3 => {
                let tokens = prompt(&mut random, &beginnings);
                let full = alive.len() == slots;
                assert_eq!(batch.is_full(), full, "a slot leaks");
                match batch.admit(tokens.clone(), name) {
                    Ok(ticket) => assert!(!full && alive.insert(name, (ticket, tokens)).is_none()),
                    Err(back) => assert!(full && back == name),
                }
            }
            4 => {
                if let Some(name) = alive.keys().copied().min_by_key(|_| random.random::<u32>()) {
                    let (ticket, tokens) = alive.remove(&name).unwrap();
                    assert_eq!(batch.finish(ticket), Some(name));
                    // The next turn of a conversation begins with this one.
                    beginnings.push(tokens);
                    gone.push(ticket);
                }
            }
            5 => {
                let odd = |name: &u64| name % 3 == 1;
                batch.evict(odd);
                gone.extend(alive.iter().filter(|(name, _)| odd(name)).map(|(_, (ticket, _))| *ticket));
                alive.retain(|name, _| !odd(name));
            }
            _ => step(&mut batch, &mut cache, &mut alive, &mut random),
        }
        for ticket in &gone {
            assert!(batch.work(*ticket).is_none() && batch.finish(*ticket).is_none(), "an old ticket opens a slot");
            assert!(batch.tokens(*ticket).is_empty());
        }
        assert_eq!(batch.is_empty(), alive.is_empty());
    }
    batch.evict(|_| true);
    for name in 0..slots as u64 {
        assert!(batch.admit(vec![1], name).is_ok(), "a slot is lost");
    }
    assert!(batch.is_full());
}

fn step(batch: &mut Batch<u64>, cache: &mut Cache, alive: &mut HashMap<u64, (Ticket, Vec<u32>)>, random: &mut StdRng) {
    let most = random.random_range(1..=CHUNK);
    let plan = batch.choose(most);
    for copying in &plan.copies {
        cache.copy(*copying);
    }
    let (mut read, mut writers) = (0, 0);
    let mut slots: Vec<usize> = plan.turns.iter().map(|turn| turn.ticket.slot).collect();
    slots.sort_unstable();
    slots.dedup();
    assert_eq!(slots.len(), plan.turns.len(), "a slot has two turns");
    // What one call does for one row it does for all, so either all succeed or none.
    let failed = random.random_ratio(1, 8);
    for turn in plan.turns {
        let (work, tokens) = batch.work(turn.ticket).unwrap();
        let (ticket, known) = alive.get_mut(work).unwrap();
        assert_eq!((*ticket, &known[..]), (turn.ticket, tokens), "a turn for another's tokens");
        assert_eq!(turn.last, turn.end == tokens.len());
        if turn.end - turn.start == 1 && turn.last {
            writers += 1;
        } else {
            read += turn.end - turn.start;
        }
        let slot = turn.ticket.slot;
        if failed {
            cache.fail(slot, turn.start, turn.end);
            continue;
        }
        cache.forward(slot, turn.start, &tokens[..turn.end]);
        batch.read(turn);
        if turn.last && known.len() < POSITIONS {
            let token = random.random_range(0..3);
            known.push(token);
            batch.write(turn.ticket, token);
        }
    }
    assert!(read <= most && writers <= alive.len());
    let unread = alive.values().any(|(_, tokens)| tokens.len() < POSITIONS);
    assert!(!slots.is_empty() || !unread, "nobody goes on");
}

#[test]
fn no_slot_leaks_and_no_row_reads_anothers_cache() {
    for seed in 0..10_000 {
        live(seed);
    }
}

/// Reads all that is to be read, in chunks; each sequence then writes a token.
fn settle<T>(batch: &mut Batch<T>) -> usize {
    let mut read = 0;
    loop {
        let plan = batch.choose(CHUNK);
        if plan.turns.is_empty() {
            return read;
        }
        for turn in plan.turns {
            read += turn.end - turn.start;
            batch.read(turn);
        }
    }
}

fn counted(from: u32, length: u32) -> Vec<u32> {
    (from..from + length).collect()
}

#[test]
fn writers_go_on_beside_a_chunk_of_prompts_the_short_one_first() {
    let mut batch = Batch::new(4);
    let writer = batch.admit(vec![1, 2], "writer").unwrap();
    settle(&mut batch);
    batch.write(writer, 3);
    let first = batch.admit(counted(100, 60), "long").unwrap();
    let second = batch.admit(counted(200, 10), "short").unwrap();
    let mut seen = Vec::new();
    for round in 0.. {
        let plan = batch.choose(25);
        assert_eq!((plan.turns[0].ticket, plan.turns[0].start, plan.turns[0].last), (writer, 2 + round, true));
        if plan.turns.len() == 1 {
            break;
        }
        for turn in plan.turns {
            if turn.ticket != writer {
                seen.push((turn.ticket, turn.start, turn.end));
            }
            batch.read(turn);
        }
        batch.write(writer, 4);
    }
    assert_eq!(seen, [(second, 0, 10), (first, 0, 15), (first, 15, 40), (first, 40, 60)]);
}

#[test]
fn the_next_turn_goes_on_in_its_slot() {
    let mut batch = Batch::new(3);
    let tokens = counted(0, 50);
    let ticket = batch.admit(tokens.clone(), ()).unwrap();
    assert_eq!(settle(&mut batch), 50);
    batch.finish(ticket);
    let longer = [tokens, counted(500, 20)].concat();
    let again = batch.admit(longer.clone(), ()).unwrap();
    assert_eq!((again.slot, batch.cached(again)), (ticket.slot, 50));
    assert_eq!(settle(&mut batch), 20);
    batch.finish(again);
    // The very same prompt: its last token is read for its logits.
    let same = batch.admit(longer, ()).unwrap();
    assert_eq!((same.slot, batch.cached(same), settle(&mut batch)), (ticket.slot, 69, 1));
}

#[test]
fn a_common_beginning_is_copied_and_the_longest_unused_goes_first() {
    let mut batch = Batch::new(3);
    let system = counted(0, 40);
    let talk = |from: u32| [system.clone(), counted(from, 30)].concat();
    let one = batch.admit(talk(100), ()).unwrap();
    settle(&mut batch);
    // Busy or not, it lends what it has read.
    let two = batch.admit(talk(200), ()).unwrap();
    let plan = batch.choose(CHUNK);
    assert_eq!(plan.copies, [Copying { from: one.slot, to: two.slot, positions: 40 }]);
    assert_eq!(batch.cached(two), 40);
    settle(&mut batch);
    batch.finish(one);
    batch.finish(two);
    // A third conversation spares both, a fourth does not spare the first.
    let three = batch.admit(talk(300), ()).unwrap();
    settle(&mut batch);
    batch.finish(three);
    assert!(batch.holds(&talk(100)) && batch.holds(&talk(200)) && batch.holds(&talk(300)));
    let back = batch.admit(talk(200), ()).unwrap();
    assert_eq!((back.slot, batch.cached(back)), (two.slot, 69));
    settle(&mut batch);
    batch.finish(back);
    let four = batch.admit(counted(700, 30), ()).unwrap();
    assert!(batch.holds(&talk(200)) && batch.cached(four) == 0);
    assert_eq!([batch.holds(&talk(100)), batch.holds(&talk(300))].iter().filter(|held| **held).count(), 1);
}

#[test]
fn who_waits_behind_the_same_beginning_takes_it_over() {
    let mut batch = Batch::new(2);
    let system = counted(0, 60);
    let one = batch.admit([system.clone(), vec![901]].concat(), ()).unwrap();
    let two = batch.admit([system, vec![902]].concat(), ()).unwrap();
    assert_eq!(settle(&mut batch), 61 + 1);
    assert_eq!((batch.cached(one), batch.cached(two)), (0, 60));
}

#[test]
fn a_failed_turn_is_taken_again() {
    let mut batch = Batch::new(1);
    let ticket = batch.admit(counted(0, 10), ()).unwrap();
    let plan = batch.choose(6);
    assert_eq!(batch.choose(6).turns, plan.turns);
    batch.read(plan.turns[0]);
    // Told twice, it counts once.
    batch.read(plan.turns[0]);
    assert_eq!(batch.choose(6).turns, [Turn { ticket, start: 6, end: 10, last: true }]);
    // Whoever has gone meanwhile changes nothing.
    let plan = batch.choose(6);
    batch.finish(ticket);
    let next = batch.admit(counted(50, 10), ()).unwrap();
    batch.read(plan.turns[0]);
    assert_eq!(batch.choose(20).turns, [Turn { ticket: next, start: 0, end: 10, last: true }]);
}
