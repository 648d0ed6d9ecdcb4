//! `aichat chat PROMPT`: one written answer.

use clap::Args;
use futures::StreamExt;

use super::output;
use crate::app::App;
use crate::config::Config;
use crate::provider::{ChatMessage, ChatRequest, Delta, Role, Sampling};

/// Ask the language model one thing
#[derive(Args, Debug)]
#[command(after_help = "Example: aichat chat 'Name three rivers.' --temperature 0")]
pub(super) struct Chat {
    prompt: String,
    /// Who the model is to be
    #[arg(long)]
    system: Option<String>,
    /// 0 takes the likeliest token
    #[arg(long, default_value_t = Sampling::default().temperature, allow_negative_numbers = true)]
    temperature: f32,
    #[arg(long, default_value_t = Sampling::default().max_tokens)]
    max_tokens: usize,
    /// The same seed gives the same answer
    #[arg(long)]
    seed: Option<u64>,
}

impl Chat {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        anyhow::ensure!(!self.prompt.trim().is_empty(), "the prompt is empty; write what the model is to answer");
        let model = App::new(config)?.chat_model().await?;
        let system = self.system.map(|text| ChatMessage::new(Role::System, text));
        let messages = system.into_iter().chain([ChatMessage::new(Role::User, self.prompt)]).collect();
        let sampling = Sampling {
            temperature: self.temperature,
            max_tokens: self.max_tokens,
            seed: self.seed,
            ..Sampling::default()
        };
        let mut deltas = model.reply(ChatRequest { messages, sampling, ..ChatRequest::default() });
        while let Some(delta) = deltas.next().await {
            match delta? {
                Delta::Begin { .. } | Delta::Thought(_) | Delta::ToolCall(_) | Delta::Logprobs(_) => {}
                Delta::Text(text) => output::piece(&text)?,
                Delta::Done { usage, .. } => {
                    output::line("")?;
                    let decoding = usage.total.saturating_sub(usage.first_token).as_secs_f64();
                    output::note(&format!(
                        "{} + {} tokens, the first after {:.2} s, then {:.1} a second",
                        usage.prompt_tokens,
                        usage.completion_tokens,
                        usage.first_token.as_secs_f64(),
                        usage.completion_tokens.saturating_sub(1) as f64 / decoding.max(1e-3),
                    ));
                }
            }
        }
        Ok(())
    }
}
