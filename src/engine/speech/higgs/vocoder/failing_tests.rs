//! A codec that fails.

use super::*;
use crate::engine::worker::Worker;
use crate::nn::higgs::codec::CODES;
use crate::testing::fixture;

fn codec() -> Worker<Command> {
    let load = || {
        let decoder = Decoder::load(&fixture("higgs_codec/transformers"), &candle_core::Device::Cpu)?;
        Ok(Vocoder { decoder, chunking: Chunking::default(), name: "higgs".into() })
    };
    Worker::spawn("codec", 16, load, run).unwrap()
}

/// Has `stream` listened to from its first to its last chunk.
async fn heard(codec: &Worker<Command>, stream: u64, frames: Vec<Frame>) -> Vec<Heard> {
    let (out, mut inbox) = mpsc::channel(64);
    let opening =
        Opening { stream, piece: "Hello.".to_owned(), out, speed: 1.0, urgency: Urgency::default(), hurry: None };
    for command in [Command::Open(Box::new(opening)), Command::Columns(stream, frames), Command::End(stream)] {
        assert!(codec.send(command).is_ok());
    }
    let mut heard = Vec::new();
    while let Some(chunk) = inbox.recv().await {
        heard.push(chunk);
    }
    heard
}

#[tokio::test]
async fn sound_that_cannot_be_made_ends_its_own_stream_alone() {
    let codec = codec();
    let good = vec![[7; 8]; 40];
    let alone = heard(&codec, 0, good.clone()).await;
    assert!(alone.last().unwrap().as_ref().unwrap().last);
    // Codes that no codebook has fail as whatever else the codec cannot do.
    let mut bad = good.clone();
    bad[30] = [CODES as u32; 8];
    let (failed, beside) = tokio::join!(heard(&codec, 1, bad), heard(&codec, 2, good.clone()));
    let (error, before) = failed.split_last().unwrap();
    assert_eq!(error.as_ref().unwrap_err(), &ProviderError::Failed { what: "higgs".to_owned() });
    assert!(before.iter().all(|chunk| chunk.as_ref().is_ok_and(|chunk| !chunk.last)));
    let sound = |heard: &[Heard]| -> Vec<f32> {
        heard.iter().flat_map(|chunk| chunk.as_ref().unwrap().audio.as_slice().to_vec()).collect()
    };
    assert!(sound(&beside) == sound(&alone), "who speaks beside it was changed");
    assert!(sound(&heard(&codec, 3, good).await) == sound(&alone), "the next is as if nothing had been");
}
