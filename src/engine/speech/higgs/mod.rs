//! What Higgs Audio v2 is asked, and how: the text made fit to speak, the prompt around it, the ids of the prompt.
//!
//! [`text`] cleans what somebody wrote; [`prompt`] lays out the turns of every kind of voice; [`story`] cuts long texts
//! and keeps what was spoken last as context; [`limits`] says how long a text may take and when to try again; [`tokens`]
//! makes of all that a prompt of `nn::higgs`. All of it is pure but the reading of tokenizer.json.

pub mod limits;
pub mod prompt;
pub mod story;
pub mod text;
pub mod tokens;
#[cfg(test)]
mod tests;
