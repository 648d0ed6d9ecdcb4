use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;

use futures::FutureExt;

use super::english::Dialect;
use super::phonemes::{SpokenWord, Symbol};
use super::pieces::cut;
use super::*;
use crate::provider::WordMark;
use crate::testing::model;

/// One engine for all tests: it serves many at once.
fn engine() -> &'static KokoroEngine {
    static ENGINE: OnceLock<KokoroEngine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        KokoroEngine::load("kokoro-82m", &model("kokoro-82m"), &Device::Cpu, Precedence::default()).unwrap()
    })
}

fn writer() -> Writer {
    let vocabulary = kokoro::read_config(&model("kokoro-82m")).unwrap().1;
    Writer { english: English::load().unwrap(), vocabulary, name: Arc::from("kokoro-82m") }
}

fn request(text: &str) -> SpeakRequest {
    SpeakRequest { text: text.to_owned(), seed: Some(1), ..SpeakRequest::default() }
}

/// Everything a request yields.
async fn chunks(request: SpeakRequest) -> Vec<SpeechChunk> {
    engine().speak(request).map(|chunk| chunk.unwrap()).collect().await
}

/// The one item of a request that must fail.
async fn error(request: SpeakRequest) -> ProviderError {
    let items: Vec<_> = engine().speak(request).collect().await;
    assert_eq!(items.len(), 1);
    items.into_iter().next().unwrap().unwrap_err()
}

fn text_of(phonemes: &Phonemes) -> String {
    phonemes.symbols.iter().map(|symbol| symbol.character).collect()
}

fn words_of(phonemes: &Phonemes) -> Vec<&str> {
    phonemes.words.iter().map(|word| word.text.as_str()).collect()
}

#[tokio::test]
async fn speech_that_nobody_waits_for_gives_way_to_a_voice_that_may_want_to_stop_it() {
    let precedence = Precedence::default();
    let engine = KokoroEngine::load("kokoro-82m", &model("kokoro-82m"), &Device::Cpu, precedence.clone()).unwrap();
    let mut fastest = [Duration::MAX; 2];
    for round in 0..6 {
        let is_begun = round % 2 == 1;
        let voice = is_begun.then(|| precedence.hurry(Urgent::Interruption));
        let begun = Instant::now();
        engine.speak(request("Hello.")).for_each(|chunk| async { drop(chunk.unwrap()) }).await;
        fastest[usize::from(is_begun)] = fastest[usize::from(is_begun)].min(begun.elapsed());
        drop(voice);
    }
    assert!(fastest[1] > fastest[0] + Duration::from_millis(500), "{fastest:?}");
}

#[tokio::test]
async fn a_sentence_becomes_ordered_chunks_with_timed_words() {
    let text = "The quick brown fox jumps over the lazy dog. Then, it sleeps until noon.";
    let chunks = chunks(request(text)).await;
    let last: Vec<bool> = chunks.iter().map(|chunk| chunk.last).collect();
    assert_eq!(last.iter().filter(|last| **last).count(), 1);
    assert_eq!(last.last(), Some(&true));
    assert!(
        chunks.iter().all(|chunk| chunk.audio.as_slice().len() <= CHUNK_SAMPLES && &*chunk.served_by == "kokoro-82m")
    );

    let audio: Vec<f32> = chunks.iter().flat_map(|chunk| chunk.audio.as_slice().to_vec()).collect();
    let seconds = audio.len() as f64 / 24_000.0;
    assert!((3.0..8.0).contains(&seconds), "{seconds} s");
    let peak = audio.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    let loudness = (audio.iter().map(|sample| sample * sample).sum::<f32>() / audio.len() as f32).sqrt();
    assert!(peak < 0.98 && (0.02..0.3).contains(&loudness), "peak {peak}, loudness {loudness}");

    let words: Vec<WordMark> = chunks.iter().flat_map(|chunk| chunk.words.clone()).collect();
    assert_eq!(words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" "), text);
    assert!(words.iter().all(|word| word.start < word.end && word.end.as_secs_f64() <= seconds));
    assert!(words.windows(2).all(|pair| pair[0].end <= pair[1].start));
    let mut passed = 0;
    for chunk in &chunks {
        let start = passed as f64 / 24_000.0;
        passed += chunk.audio.as_slice().len();
        let end = passed as f64 / 24_000.0;
        assert!(chunk.words.iter().all(|word| (start..end).contains(&word.start.as_secs_f64())));
    }
    // A word is where its sound is: "dog." is followed by the pause between the sentences.
    let dog = words.iter().find(|word| word.text == "dog.").unwrap();
    let level = |from: f64, to: f64| {
        let part = &audio[(from * 24_000.0) as usize..(to * 24_000.0) as usize];
        (part.iter().map(|sample| sample * sample).sum::<f32>() / part.len() as f32).sqrt()
    };
    let then = words.iter().find(|word| word.text == "Then,").unwrap();
    let gap = f64::midpoint(dog.end.as_secs_f64(), then.start.as_secs_f64());
    let (word, pause) = (level(dog.start.as_secs_f64(), dog.end.as_secs_f64()), level(gap - 0.03, gap + 0.03));
    assert!(word > 4.0 * pause, "{word} in {dog:?}, {pause} before {then:?}");
}

#[tokio::test]
async fn the_same_seed_gives_the_same_audio() {
    let audio = |seed| async move {
        let spoken = chunks(SpeakRequest { seed: Some(seed), ..request("Good morning to you all.") }).await;
        spoken.iter().flat_map(|chunk| chunk.audio.as_slice().to_vec()).collect::<Vec<f32>>()
    };
    let first = audio(5).await;
    assert_eq!(first, audio(5).await);
    assert_ne!(first, audio(6).await);
}

#[tokio::test]
async fn speed_divides_the_length_and_is_bounded() {
    let seconds = |speed| async move {
        let spoken = chunks(SpeakRequest { speed, ..request("Please read this whole sentence at my pace.") }).await;
        spoken.iter().map(|chunk| chunk.audio.duration().as_secs_f64()).sum::<f64>()
    };
    let (slow, normal, fast) = (seconds(0.5).await, seconds(1.0).await, seconds(2.0).await);
    assert!(slow > 1.5 * normal && normal > 1.4 * fast, "{slow} {normal} {fast}");
    for speed in [0.49, 2.01, f32::NAN, f32::INFINITY, -1.0] {
        let error = error(SpeakRequest { speed, ..request("Hello.") }).await;
        assert!(matches!(error, ProviderError::InvalidRequest { field: "speed", .. }), "{speed}: {error}");
    }
}

#[tokio::test]
async fn nothing_to_say_is_one_empty_last_chunk() {
    for text in ["", "   \n", "...", "— !?", "🙂", "[[]]", "[[ . ]]"] {
        let chunks = chunks(request(text)).await;
        assert_eq!(chunks.len(), 1, "{text:?}");
        assert!(chunks[0].last && chunks[0].audio.is_empty() && chunks[0].words.is_empty());
    }
}

#[tokio::test]
async fn voices_and_languages_are_answered_for() {
    let voices = engine().voices();
    assert_eq!(voices.len(), 54);
    let of = |language: &str| voices.iter().filter(|voice| voice.language == language).count();
    let counts = ["en-us", "en-gb", "ja", "zh", "es", "fr", "hi", "it", "pt-br"].map(of);
    assert_eq!(counts, [20, 8, 5, 8, 3, 1, 4, 2, 3]);

    let named = |voice: &str, language: Option<&str>| SpeakRequest {
        voice: Some(voice.to_owned()),
        language: language.map(str::to_owned),
        ..request("Hello there.")
    };
    let unknown = error(named("af_haert", None)).await;
    assert_eq!(
        unknown,
        ProviderError::VoiceUnavailable { voice: "af_haert".to_owned(), nearest: "af_heart".to_owned() }
    );
    for (voice, language) in
        [("jf_alpha", None), ("zf_xiaoni", None), ("af_heart", Some("de")), ("ef_dora", Some("en"))]
    {
        let error = error(named(voice, language)).await;
        assert!(matches!(error, ProviderError::LanguageUnsupported { .. }), "{voice} {language:?}: {error}");
    }
    for language in ["ja", "zh-cn", "xx", ""] {
        let error = error(SpeakRequest { language: Some(language.to_owned()), ..request("Hello.") }).await;
        assert!(matches!(error, ProviderError::LanguageUnsupported { .. }), "{language}: {error}");
    }
    let choose = |voice, language| engine().voices.choose(voice, language, "kokoro").unwrap();
    for (theirs, ours) in [("alloy", "af_alloy"), ("fable", "bm_fable"), ("shimmer", "af_sky"), ("verse", "am_puck")] {
        assert_eq!(choose(Some(theirs), None).0, ours);
    }
    let british = Tongue::English(Dialect::British);
    assert_eq!(choose(None, None), ("af_heart".to_owned(), Tongue::English(Dialect::American)));
    assert_eq!(choose(None, Some("en")), ("af_heart".to_owned(), Tongue::English(Dialect::American)));
    assert_eq!(choose(None, Some("EN-GB")), ("bf_alice".to_owned(), british));
    assert_eq!(choose(Some("bm_george"), Some("en")), ("bm_george".to_owned(), british));
    assert_eq!(choose(Some("af_heart"), Some("en-gb")), ("af_heart".to_owned(), british));
    assert_eq!(choose(None, Some("es-mx")), ("ef_dora".to_owned(), Tongue::Espeak("es")));
    assert_eq!(choose(None, Some("pt")), ("pf_dora".to_owned(), Tongue::Espeak("pt-br")));
}

#[tokio::test]
async fn dropping_a_stream_stops_its_work() {
    let long = "This sentence goes on for quite some time, and nobody is going to listen to it. ".repeat(40);
    let mut flow = engine().speak(request(&long));
    assert!(!flow.next().await.unwrap().unwrap().last);
    drop(flow);
    // At most the stage in work is finished before the next request's turn.
    let started = Instant::now();
    chunks(request("Hello.")).await;
    let first = started.elapsed();
    let started = Instant::now();
    chunks(request("Hello.")).await;
    assert!(first < 4 * started.elapsed() + Duration::from_secs(2), "{first:?}");
}

#[tokio::test]
async fn a_slow_listener_holds_nobody_and_gets_everything() {
    // Several pieces, and nobody reads.
    let long = "Here is one more sentence for a listener who sleeps. ".repeat(16);
    let mut slow = engine().speak(request(&long));
    let quick = SpeakRequest { urgency: Urgency::First, ..request("Are you there?") };
    chunks(quick).await;
    // Each of these waits for a piece of the slow one, as long as that one may go on.
    for _ in 0..4 {
        chunks(request("And are you there?")).await;
    }
    // It went no further than the hand-over: buffering is for `provider::limit`.
    let mut spoken = Vec::new();
    while let Some(Some(chunk)) = slow.next().now_or_never() {
        spoken.push(chunk.unwrap());
    }
    let seconds = |chunks: &[SpeechChunk]| chunks.iter().map(|chunk| chunk.audio.duration().as_secs_f64()).sum::<f64>();
    let ahead = seconds(&spoken);
    assert!((1.0..25.0).contains(&ahead), "{ahead} s were spoken for nobody");
    spoken.extend(slow.map(|chunk| chunk.unwrap()).collect::<Vec<_>>().await);
    assert!(seconds(&spoken) > 40.0, "{} s hold no more than the hand-over", seconds(&spoken));
    assert_eq!(spoken.iter().map(|chunk| chunk.words.len()).sum::<usize>(), 16 * 10);
    assert!(spoken.last().unwrap().last);
}

#[test]
fn loading_names_the_file_and_the_reason() {
    let fault = |dir: &Path| {
        KokoroEngine::load("kokoro-82m", dir, &Device::Cpu, Precedence::default()).err().unwrap().to_string()
    };
    let dir = tempfile::tempdir().unwrap();
    assert!(fault(dir.path()).contains(".json"));
    std::fs::write(dir.path().join("vocab.json"), "{\"vocab\": {\"a\": 500}}").unwrap();
    assert!(fault(dir.path()).contains("vocab.json"));
    std::fs::write(dir.path().join("vocab.json"), "{\"vocab\": {\"a\": 43}}").unwrap();
    assert!(fault(dir.path()).contains("voices"));
    std::fs::create_dir(dir.path().join("voices")).unwrap();
    assert!(fault(dir.path()).contains("it holds no voices"));
    let voice = dir.path().join("voices/af_heart.bin");
    std::fs::write(&voice, [0; 1024]).unwrap();
    assert!(fault(dir.path()).contains("af_heart.bin"));
    let whole = kokoro::read_config(dir.path()).unwrap().0.voice_bytes();
    std::fs::write(&voice, vec![0; whole as usize]).unwrap();
    assert!(fault(dir.path()).contains("model.safetensors"));
    std::fs::write(dir.path().join("model.safetensors"), [9; 100]).unwrap();
    assert!(fault(dir.path()).contains("model.safetensors"));
    assert!(KokoroEngine::memory_estimate(&model("kokoro-82m")).unwrap() > 600 << 20);
}

#[test]
fn english_is_read_in_both_dialects_with_raw_phonemes_between() {
    let writer = writer();
    let us = writer.write("Hello,  [[kˈOkəɹO]]! It costs $5.", Tongue::English(Dialect::American)).unwrap();
    assert_eq!(text_of(&us), "həlˈO, kˈOkəɹO! ˌɪt kˈɔsts fˈIv dˈɑləɹz.");
    assert_eq!(words_of(&us), ["Hello,", "kˈOkəɹO!", "It", "costs", "$5."]);
    let said = |word: &SpokenWord| us.symbols[word.symbols.clone()].iter().map(|symbol| symbol.character).collect();
    let said: Vec<String> = us.words.iter().map(said).collect();
    assert_eq!(said, ["həlˈO", "kˈOkəɹO", "ˌɪt", "kˈɔsts", "fˈIv dˈɑləɹz"]);
    let gb = writer.write("Hello", Tongue::English(Dialect::British)).unwrap();
    assert_eq!(text_of(&gb), "həlˈQ");
    // An open bracket is not markup, and what it holds is not lost.
    let open = writer.write("Well [[ then", Tongue::English(Dialect::American)).unwrap();
    assert!(words_of(&open).contains(&"then"));
}

#[test]
fn other_languages_keep_their_marks_and_words() {
    if std::process::Command::new("espeak-ng").arg("--version").output().is_err() {
        // Without the program the engine says what to install: that is all there is to check.
        let error = writer().write("Hola", Tongue::Espeak("es")).unwrap_err();
        assert!(error.to_string().contains("apt install espeak-ng"), "{error}");
        return;
    }
    let writer = writer();
    let spanish = writer.write("¡Hola! ¿Qué tal, amigo? Son 3,5 euros.", Tongue::Espeak("es")).unwrap();
    let text = text_of(&spanish);
    assert!(text.starts_with("ˈola!"), "{text}");
    assert_eq!(text.matches(['!', '?', ',', '.']).collect::<String>(), "!,?.", "{text}");
    let words = words_of(&spanish);
    assert!(words.contains(&"amigo") && words.len() >= 6, "{words:?}");
    for (voice, text) in [
        ("fr-fr", "Tout le monde est là."),
        ("hi", "नमस्ते दुनिया।"),
        ("it", "Buongiorno a tutti."),
        ("pt-br", "Bom dia, mundo."),
    ] {
        let phonemes = writer.write(text, Tongue::Espeak(voice)).unwrap();
        assert!(phonemes.symbols.len() > 8 && text_of(&phonemes).ends_with('.'), "{}", text_of(&phonemes));
        assert!(phonemes.words.windows(2).all(|pair| pair[0].symbols.end <= pair[1].symbols.start));
    }
}

#[test]
fn no_text_panics_the_phonemizer() {
    let writer = writer();
    let odd = [
        "[a](/b/)",
        "[x](+2)",
        "[](//)",
        "[[",
        "]]",
        "[[[[a]]]]",
        "a\u{0}b",
        "﷽",
        "😀😀",
        "١٢٣",
        "1e999",
        "$",
        "$$$5.5.5",
        "12:61",
        "-",
        "'",
        "''",
        "’s",
        "99999999999999999999999999",
        "0x1F",
        "www.a.b/c?d=e#f",
        "ﬁ",
        "\u{200b}",
        "İ",
        "ß",
        "日本語",
        "a.b.c.d",
        "12/34/5678",
        "3rd 22nd 111th",
        "C++",
        "R&D",
        "50%",
        "€3,50",
        "½",
        "x²",
        "Mr. & Mrs.",
        "e.g.",
    ];
    for text in odd {
        let _ = writer.write(text, Tongue::English(Dialect::American)).unwrap();
        let _ = writer.write(text, Tongue::English(Dialect::British)).unwrap();
    }
}

fn phonemes(text: &str) -> Phonemes {
    let symbols: Vec<Symbol> = text.chars().map(|character| Symbol { character, id: 1 }).collect();
    let mut phonemes = Phonemes { symbols, words: Vec::new() };
    let mut start = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if word.chars().any(char::is_alphanumeric) {
            phonemes.words.push(SpokenWord { text: word.to_owned(), symbols: start..start + length });
        }
        start += length + 1;
    }
    phonemes
}

#[test]
fn pieces_end_where_a_speaker_breathes() {
    let said = |text: &str, hurry: bool| -> Vec<String> {
        let text_of = |piece: &pieces::Piece| piece.symbols.iter().map(|symbol| symbol.character).collect();
        cut(phonemes(text), hurry).iter().map(text_of).collect()
    };
    assert_eq!(said("one short sentence.", false), ["one short sentence."]);
    assert_eq!(said("one short sentence.", true), ["one short sentence."]);
    let two = "here is the first clause, and here is what comes after it.";
    assert_eq!(said(two, false), [two]);
    assert_eq!(said(two, true), ["here is the first clause,", "and here is what comes after it."]);
    // A last word is not left alone.
    assert_eq!(said("here is the only real clause, friend.", true), ["here is the only real clause, friend."]);

    let sentence = "a sentence of some forty symbols or so it is. ";
    let pieces = said(&sentence.repeat(20), false);
    assert!(pieces.iter().all(|piece| piece.len() <= 200 && piece.ends_with('.')), "{pieces:?}");
    assert_eq!(pieces.join(" "), sentence.repeat(20).trim());
    // No mark for a long time, and then none at all.
    let endless = "word ".repeat(300);
    let pieces = said(&endless, false);
    assert!(pieces.iter().all(|piece| piece.len() <= 510));
    assert_eq!(pieces.join(" "), endless.trim());
    assert!(said(&"x".repeat(1200), false).iter().all(|piece| piece.len() <= 510));
    for piece in cut(phonemes(&sentence.repeat(20)), false) {
        for word in &piece.words {
            let said: String = piece.symbols[word.symbols.clone()].iter().map(|symbol| symbol.character).collect();
            assert_eq!(said, word.text);
        }
    }
}

#[test]
#[ignore = "writes the sentences' audio to SPEECH_OUT, to be transcribed by another program"]
fn writes_the_sentences() {
    let out = PathBuf::from(std::env::var_os("SPEECH_OUT").expect("SPEECH_OUT"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (index, sentence) in include_str!("../../../tests/fixtures/sentences.txt").lines().enumerate() {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: 24_000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut wav = hound::WavWriter::create(out.join(format!("{:02}.wav", index + 1)), spec).unwrap();
        for chunk in runtime.block_on(chunks(request(sentence))) {
            for bytes in chunk.audio.to_s16le().as_chunks::<2>().0 {
                wav.write_sample(i16::from_le_bytes(*bytes)).unwrap();
            }
        }
        wav.finalize().unwrap();
    }
}

#[test]
fn a_voice_of_the_wrong_length_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("af_bella.bin");
    std::fs::write(folder.path().join("af_heart.bin"), [0; 4096]).unwrap();
    for length in [0, 1, 1024, 4095, 4097, 8192] {
        std::fs::write(&path, vec![0; length]).unwrap();
        let error = Voices::find(folder.path(), 4096).err().unwrap().to_string();
        assert!(error.contains("af_bella.bin") && error.contains(&format!("{length} bytes")), "{error}");
    }
    std::fs::write(&path, [0; 4096]).unwrap();
    assert_eq!(Voices::find(folder.path(), 4096).unwrap().list().len(), 2);
}
