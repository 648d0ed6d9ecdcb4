//! Scripts to ids, by the checkpoint's tokenizer.json.

use std::path::Path;

use tokenizers::Tokenizer;

use super::prompt::{Part, Script};
use crate::engine::EngineError;
use crate::nn::higgs::{HiggsConfig, Prompt, Segment};

/// Every marker that a script may have. `<|audio_out_bos|>` is checked against the model's own number for it.
const MARKERS: [&str; 9] = [
    SPEECH_BEGIN,
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
    "<|scene_desc_start|>",
    "<|scene_desc_end|>",
];
const SPEECH_BEGIN: &str = "<|audio_out_bos|>";

pub struct PromptTokens {
    tokenizer: Tokenizer,
}

impl PromptTokens {
    /// Reads `folder/tokenizer.json`.
    ///
    /// # Errors
    /// [`EngineError::BadFile`] where it is missing or damaged, or is another model's.
    pub fn load(folder: &Path, config: &HiggsConfig) -> Result<Self, EngineError> {
        let path = folder.join("tokenizer.json");
        let bad = |reason: String| EngineError::BadFile { path: path.clone(), reason };
        let tokenizer = Tokenizer::from_file(&path).map_err(|error| bad(error.to_string()))?;
        for marker in MARKERS {
            let ids = encode(&tokenizer, marker).map_err(&bad)?;
            let &[id] = ids.as_slice() else {
                return Err(bad(format!("{marker} is no token of it: it belongs to another model")));
            };
            if id as usize >= config.vocabulary || (marker == SPEECH_BEGIN && id != config.speech_begin) {
                return Err(bad(format!("{marker} is the id {id} in it: it belongs to another model")));
            }
        }
        Ok(Self { tokenizer })
    }

    /// # Errors
    /// What the tokenizer says.
    pub fn prompt(&self, script: &Script) -> Result<Prompt, EngineError> {
        let segments = script.parts().iter().map(|part| match part {
            Part::Speech(speech) => Ok(speech.clone()),
            Part::Words(words) => encode(&self.tokenizer, words)
                .map(Segment::Text)
                .map_err(|reason| EngineError::Canary { what: "the tokenizer".to_owned(), reason }),
        });
        Ok(Prompt::new(segments.collect::<Result<Vec<_>, _>>()?))
    }
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, String> {
    let encoded = tokenizer.encode_fast(text, false).map_err(|error| error.to_string())?;
    Ok(encoded.get_ids().to_vec())
}
