//! The engine on a network that ends what it says when it is told to: what was said is context, and nothing is tried again.

use std::sync::Arc;
use std::sync::Mutex;

use futures::future::join_all;

use super::engine_tests::{OPTIONS, fault, folders, heard, request};
use super::model::Network;
use super::*;
use crate::engine::device::DeviceChoice;
use crate::engine::precedence::Precedence;
use crate::nn::higgs::{Higgs, HiggsConfig, HiggsError, Prompt, Speaker};
use crate::provider::{ProviderError, SpeakRequest, StoryId};

/// What becomes of the utterances, in the order in which they begin.
#[derive(Default)]
struct Script {
    /// After so many columns each one ends. The last one holds for all that follow.
    ends: Vec<usize>,
    /// Positions that each one's prompt has.
    prompts: Vec<usize>,
}

/// The tiny model with a script. One at a time.
struct Ending {
    higgs: Higgs,
    script: Arc<Mutex<Script>>,
}

impl Network for Ending {
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
        self.higgs.reset(slot, length)
    }

    fn copy_prefix(&mut self, from: usize, to: usize, length: usize) -> Result<(), HiggsError> {
        self.higgs.copy_prefix(from, to, length)
    }

    fn prefill(&mut self, slot: usize, prompt: &Prompt, most: usize) -> Result<usize, HiggsError> {
        let left = self.higgs.prefill(slot, prompt, most)?;
        if left == 0 {
            self.script.lock().unwrap().prompts.push(prompt.len());
        }
        Ok(left)
    }

    fn step(&mut self, speakers: &mut [Speaker<'_>]) -> Result<(), HiggsError> {
        let config = self.higgs.config();
        // All codebooks would rather end than anything else.
        let mut end = vec![-50.0; config.logits()];
        end.chunks_mut(config.book()).for_each(|book| book[config.book() - 1] = 50.0);
        for speaker in speakers {
            let mut script = self.script.lock().unwrap();
            if speaker.utterance.columns() < script.ends[0] {
                drop(script);
                let Speaker { slot, utterance } = speaker;
                self.higgs.step(&mut [Speaker { slot: *slot, utterance }])?;
            } else if speaker.utterance.advance(&mut end.clone()).is_some() && script.ends.len() > 1 {
                script.ends.remove(0);
            }
        }
        Ok(())
    }
}

/// The engine, each of whose utterances ends after so many columns.
fn ending(ends: &[usize]) -> (HiggsEngine, Arc<Mutex<Script>>) {
    let script = Arc::new(Mutex::new(Script { ends: vec![0], ..Script::default() }));
    let network = {
        let script = Arc::clone(&script);
        move |higgs| Box::new(Ending { higgs, script }) as Box<dyn Network>
    };
    let (model, codec) = folders();
    let options = HiggsOptions { slots: 1, ..OPTIONS };
    let precedence = Precedence::default();
    let engine = HiggsEngine::load_with("higgs", (&model, &codec), DeviceChoice::Cpu, options, precedence, network);
    let engine = engine.unwrap();
    // It has warmed up.
    *script.lock().unwrap() = Script { ends: ends.to_vec(), ..Script::default() };
    (engine, script)
}

fn told(text: &str, story: Option<&str>) -> SpeakRequest {
    SpeakRequest { story: story.map(|name| StoryId::Part(name.into())), ..request(text, "clara") }
}

#[tokio::test]
async fn what_came_to_nothing_is_tried_three_times() {
    let (engine, script) = ending(&[0, 0, 20]);
    assert!(!heard(&engine, told("Good morning.", None)).await.is_empty());
    assert_eq!(script.lock().unwrap().prompts.len(), 3, "two attempts came to nothing");
    let (engine, script) = ending(&[0, 0, 0, 20]);
    assert_eq!(fault(&engine, told("Good morning.", None)).await, ProviderError::Failed { what: "higgs".to_owned() });
    assert_eq!(script.lock().unwrap().prompts.len(), 3);
    assert!(!heard(&engine, told("Good morning.", None)).await.is_empty(), "it goes on");
}

#[tokio::test]
async fn what_was_said_is_context_of_what_the_same_voice_says_next_in_the_same_story() {
    const COLUMNS: usize = 60;
    let (engine, script) = ending(&[COLUMNS]);
    let prompts = || std::mem::take(&mut script.lock().unwrap().prompts);
    heard(&engine, told("How are you?", None)).await;
    heard(&engine, told("How are you?", None)).await;
    let alone = prompts();
    assert_eq!(alone[0], alone[1], "what stands alone hears nothing");
    join_all(["How are you?", "How are you?", "How are you?"].map(|text| heard(&engine, told(text, Some("a"))))).await;
    let story = prompts();
    assert_eq!(story[0], alone[0]);
    assert!(story[1] >= story[0] + COLUMNS && story[2] >= story[1] + COLUMNS, "{story:?}");
    heard(&engine, told("How are you?", Some("b"))).await;
    assert_eq!(prompts(), [alone[0]], "another story");
    heard(&engine, SpeakRequest { voice: Some("james".to_owned()), ..told("How are you?", Some("a")) }).await;
    assert!(prompts()[0] < story[1], "another voice of the same story");
    for text in 0..70 {
        let story = Some(StoryId::Text(text.to_string().into()));
        heard(&engine, SpeakRequest { story, ..told("How are you?", None) }).await;
    }
    prompts();
    heard(&engine, told("How are you?", Some("a"))).await;
    assert!(prompts()[0] >= story[2], "texts that are read once make nobody forget");
}
