//! Higgs Audio v2 without its weights: a model of noise, of the published sizes on a card and of small ones on a CPU.
//!
//! Prints two Markdown tables: what listeners wait for, through the engine, at 1 to 32 streams; and what a step of the
//! model takes, against the time that reading its weights takes at least. Between them it says what memory many jobs of
//! all kinds leave behind. Needs no network and no model.
//!   higgs [--sizes published|small] [--precision float|q8|q4] [--streams 1,4,8] [--seconds 20] [--jobs 500]
//!         [--bandwidth GB/S]
//! `--bandwidth` is the memory's, of which the floor is computed: 4800 for an H200. On a CPU it is measured.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench that fails says why and stops")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aichat::engine::device::{self, DeviceChoice};
use aichat::engine::speech::higgs::{HiggsEngine, HiggsOptions, HiggsVoice, HiggsVoiceKind, Recording};
use aichat::nn::higgs::{
    Codes, Higgs, HiggsConfig, LoadOptions, MemoryNeed, Outcome, Precision, Prompt, Segment, Speaker, SpeechSettings,
    Utterance,
};
use aichat::provider::{SpeakRequest, SpeechSynthesizer, Urgency};
use futures::future::join_all;
use futures::{StreamExt, stream};
use rayon::prelude::*;
use tokio::runtime::{self, Runtime};

/// Of an H200, in bytes a second.
const H200: f64 = 4.8e12;
/// Frames of the voice's recording: five seconds.
const RECORDING: u32 = 125;
/// About ten seconds of speech.
const TEXT: &str = "The river runs past the old mill, and every evening the light turns the water into gold; then the \
                    children come down from the village and sail their boats.";
const ROUNDS: usize = 10;

struct Setting {
    device: DeviceChoice,
    config: HiggsConfig,
    precision: Precision,
    streams: Vec<usize>,
    window: Duration,
    jobs: usize,
    bandwidth: f64,
}

impl Setting {
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let value = |name: &str| {
            let place = arguments.iter().position(|argument| argument == name);
            place.and_then(|place| arguments.get(place + 1)).map(String::as_str)
        };
        let device = DeviceChoice::Auto.resolve();
        let is_card = device != DeviceChoice::Cpu;
        let is_published = value("--sizes").map_or(is_card, |sizes| sizes == "published");
        let streams = value("--streams").unwrap_or(if is_card { "1,4,8,16,32" } else { "1,4,8" });
        let gigabytes = value("--bandwidth").map(|number| number.parse::<f64>().unwrap() * 1e9);
        Self {
            device,
            config: if is_published { published() } else { small() },
            precision: match value("--precision") {
                Some("q8") => Precision::Q8_0,
                Some("q4") => Precision::Q4K,
                _ => Precision::Float,
            },
            streams: streams.split(',').map(|number| number.parse().unwrap()).collect(),
            window: Duration::from_secs(value("--seconds").map_or(20, |number| number.parse().unwrap())),
            jobs: value("--jobs").map_or(if is_card { 500 } else { 20 }, |number| number.parse().unwrap()),
            bandwidth: gigabytes.unwrap_or_else(|| if is_card { H200 } else { memory_bandwidth() }),
        }
    }

    fn options(&self) -> HiggsOptions {
        let slots = self.streams.iter().copied().max().unwrap();
        HiggsOptions { precision: self.precision, slots, positions: 1024, ..HiggsOptions::default() }
    }

    /// Bytes of weights that a step reads: attention, the audio branch and the audio head.
    fn step_bytes(&self) -> f64 {
        let HiggsConfig { hidden, intermediate, layers, .. } = self.config;
        let attention = 2 * hidden * self.config.head_dim * (self.config.heads + self.config.kv_heads);
        let products = (layers * (attention + 3 * hidden * intermediate)) as f64;
        let float = if self.device == DeviceChoice::Cpu { 4.0 } else { 2.0 };
        let weight = match self.precision {
            Precision::Float => float,
            Precision::Q8_0 => 34.0 / 32.0,
            Precision::Q4K => 144.0 / 256.0,
        };
        products * weight + (self.config.logits() * hidden) as f64 * float
    }
}

/// With the id that the fixture's tokenizer has for the begin of speech.
fn published() -> HiggsConfig {
    HiggsConfig { speech_begin: 269, ..HiggsConfig::published() }
}

/// A fiftieth of the published weights. Codebooks and codes are the published ones, as the codec is.
fn small() -> HiggsConfig {
    HiggsConfig { vocabulary: 512, hidden: 768, intermediate: 2048, layers: 8, heads: 6, kv_heads: 2, ..published() }
}

fn main() {
    let setting = Setting::read();
    let config = &setting.config;
    println!(
        "Random weights on {}: {} layers of {}, {:?}; {:.2} GB of weights read a step, {:.0} GB/s of memory.",
        setting.device,
        config.layers,
        config.hidden,
        setting.precision,
        setting.step_bytes() / 1e9,
        setting.bandwidth / 1e9
    );
    let before = used(setting.device);
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let engine = engine(&setting, &runtime);
    println!("\nMemory: {:.2} GB.", used(setting.device).saturating_sub(before) as f64 / 1e9);
    listeners(&setting, &engine, &runtime);
    mixed_jobs(&setting, &engine, &runtime);
    drop(engine);
    steps(&setting);
}

/// With a voice that is known: its recording is read, and every kernel was run once.
fn engine(setting: &Setting, runtime: &Runtime) -> Arc<HiggsEngine> {
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/higgs_lm/wide");
    let load = || HiggsEngine::random("noise", &tokenizer, setting.config.clone(), setting.device, setting.options());
    let engine = Arc::new(load().unwrap());
    let codes = Codes::from_rows(8, (0..8 * RECORDING).map(|index| index * 7 % 1024).collect()).unwrap();
    let kind = HiggsVoiceKind::Cloned {
        recording: Recording::Codes(codes),
        transcript: "These are the words of it.".into(),
        scene: None,
    };
    engine.enrol(HiggsVoice { name: "me".into(), language: "en".into(), kind }).unwrap();
    runtime.block_on(speak(&engine, 0));
    engine
}

/// What those who listen wait for.
fn listeners(setting: &Setting, engine: &Arc<HiggsEngine>, runtime: &Runtime) {
    let alone: Vec<f64> =
        (0..ROUNDS).map(|seed| runtime.block_on(speak(engine, seed as u64)).first.as_secs_f64()).collect();
    println!(
        "\nFirst audio of a cloned voice that is known, alone: {:.0} ms (median of {ROUNDS}).",
        median(alone) * 1e3
    );
    println!("\n| streams | first audio, median / p95 | real-time factor of a stream | audio-seconds a second |");
    println!("|---|---|---|---|");
    for count in &setting.streams {
        let begin = Instant::now();
        let clients = (0..*count).map(|client| {
            let engine = Arc::clone(engine);
            async move {
                let mut said = Vec::new();
                while begin.elapsed() < setting.window {
                    said.push(speak(&engine, (client * 1000 + said.len()) as u64).await);
                }
                said
            }
        });
        let said: Vec<Said> = runtime.block_on(join_all(clients)).into_iter().flatten().collect();
        let took = begin.elapsed().as_secs_f64();
        let audio: f64 = said.iter().map(|said| said.audio).sum();
        let factor = said.iter().map(|said| said.took.as_secs_f64()).sum::<f64>() / audio;
        let mut first: Vec<f64> = said.iter().map(|said| said.first.as_secs_f64() * 1e3).collect();
        first.sort_by(f64::total_cmp);
        let p95 = first[(first.len() * 95).div_ceil(100) - 1];
        println!("| {count} | {:.0} / {p95:.0} ms | {factor:.2} | {:.1} |", median(first), audio / took);
    }
}

/// What memory many jobs leave behind: short and long ones, of three voices, a fifth of them left in their midst.
fn mixed_jobs(setting: &Setting, engine: &HiggsEngine, runtime: &Runtime) {
    let (before, begin) = (used(setting.device) as f64 / 1e9, Instant::now());
    let job = |job: usize| async move {
        let text = match job % 4 {
            0 => "Yes.".to_owned(),
            1 => "Good morning, how are you?".to_owned(),
            2 => TEXT.to_owned(),
            _ => format!("{TEXT} {TEXT}"),
        };
        let voice = Some(["me", "clara", "james"][job % 3].to_owned());
        let mut flow = engine.speak(SpeakRequest { text, voice, seed: Some(job as u64), ..SpeakRequest::default() });
        let most = if job.is_multiple_of(5) { 2 } else { usize::MAX };
        let mut heard = 0;
        while heard < most
            && let Some(chunk) = flow.next().await
        {
            chunk.unwrap();
            heard += 1;
        }
    };
    let at_once = setting.options().slots + 2;
    runtime.block_on(stream::iter(0..setting.jobs).map(job).buffer_unordered(at_once).collect::<()>());
    let after = used(setting.device) as f64 / 1e9;
    println!(
        "\n{} mixed jobs in {:.0} s: {before:.3} GB in use before, {after:.3} GB after ({:+.1} %).",
        setting.jobs,
        begin.elapsed().as_secs_f64(),
        (after / before - 1.0) * 100.0
    );
}

/// A request, listened to at once.
struct Said {
    first: Duration,
    took: Duration,
    /// In seconds.
    audio: f64,
}

async fn speak(engine: &HiggsEngine, seed: u64) -> Said {
    let begin = Instant::now();
    let request = SpeakRequest {
        text: TEXT.into(),
        voice: Some("me".into()),
        urgency: Urgency::First,
        seed: Some(seed),
        ..SpeakRequest::default()
    };
    let mut flow = engine.speak(request);
    let (mut first, mut audio) = (None, 0.0);
    while let Some(chunk) = flow.next().await {
        first.get_or_insert_with(|| begin.elapsed());
        audio += chunk.unwrap().audio.len().seconds();
    }
    Said { first: first.unwrap(), took: begin.elapsed(), audio }
}

/// What a step of the model takes, without the engine and without the codec.
fn steps(setting: &Setting) {
    const STEPS: usize = 50;
    let HiggsOptions { precision, slots, positions, .. } = setting.options();
    let device = device::open(setting.device).unwrap();
    let options = LoadOptions { precision, slots, positions };
    let mut higgs = Higgs::random(setting.config.clone(), &device, options).unwrap();
    let floor = setting.step_bytes() / setting.bandwidth * 1e3;
    let per_position = MemoryNeed::of(&setting.config, precision, &device).bytes_per_position as f64;
    let prompt = Prompt::new([Segment::Text((0..300).map(|index| index % 256).collect())]);
    for slot in 0..slots {
        while higgs.prefill(slot, &prompt, 256).unwrap() > 0 {}
    }
    println!("\n| rows | ms a step | floor, ms | step / floor | rows a second |");
    println!("|---|---|---|---|---|");
    for count in &setting.streams {
        let settings = SpeechSettings { most_frames: positions, ..SpeechSettings::default() };
        let begin = |seed: usize| Utterance::new(&setting.config, settings, seed as u64, &Codes::new(8));
        let mut utterances: Vec<Utterance> = (0..*count).map(begin).collect();
        let mut times = Vec::new();
        for step in 0..STEPS + 5 {
            for (slot, utterance) in utterances.iter_mut().enumerate() {
                // Noise ends when it likes; another begins at the same place.
                if utterance.outcome().is_some_and(|outcome| outcome != Outcome::Broken) {
                    higgs.reset(slot, prompt.len()).unwrap();
                    *utterance = begin(step * 100 + slot);
                }
            }
            let now = Instant::now();
            let speakers = utterances.iter_mut().enumerate().map(|(slot, utterance)| Speaker { slot, utterance });
            higgs.step(&mut speakers.collect::<Vec<_>>()).unwrap();
            // The first ones warm up.
            if step >= 5 {
                times.push(now.elapsed().as_secs_f64() * 1e3);
            }
        }
        for slot in 0..*count {
            higgs.reset(slot, prompt.len()).unwrap();
        }
        let step = median(times);
        let floor = floor + per_position * (300 * count) as f64 / setting.bandwidth * 1e3;
        println!("| {count} | {step:.2} | {floor:.2} | {:.1} | {:.0} |", step / floor, *count as f64 / step * 1e3);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bytes of the device that are in use: of a card all of it, of a CPU by this process.
fn used(device: DeviceChoice) -> u64 {
    if device != DeviceChoice::Cpu {
        let memory = device::memory(device).unwrap();
        return memory.total - memory.free;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// How fast all cores together read what no cache holds.
fn memory_bandwidth() -> f64 {
    let words: Vec<u64> = (0..1 << 27).collect();
    let read = || {
        let begin = Instant::now();
        let sum: u64 = words.par_chunks(1 << 20).map(|part| part.iter().fold(0, |sum: u64, word| sum ^ word)).sum();
        assert_ne!(sum, 1);
        (words.len() * 8) as f64 / begin.elapsed().as_secs_f64()
    };
    (0..5).map(|_| read()).fold(0.0, f64::max)
}
