//! Holds a reply to a grammar, token by token: at each step the tokens that cannot go on are masked.
//!
//! The work is llguidance's, on the model's own vocabulary, byte for byte. Markers are never allowed, but the end of
//! turn where the text is complete and those that the family's tool calls are made of. A grammar is compiled on a
//! thread of its own while the prompt is read, within bounds of time, memory and stack; what passes them is refused.
//! Thoughts that come before the answer are free.

mod grammar;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use llguidance::api::ParserLimits;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{
    ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie,
};
use llguidance::{Matcher, ParserFactory};

pub(super) use self::grammar::callable;
use self::grammar::{Plan, invalid, plan};
use super::tokenizer::{THINK, Tokenizer};
use super::tools::Dialect;
use crate::provider::{ChatRequest, ProviderError, ToolChoice};

/// From the request to a grammar that is ready, the first step's mask included.
const COMPILE_TIME: Duration = Duration::from_millis(500);
/// Grammars that compile at the same time: each takes a core.
const MOST_COMPILING: usize = 2;
/// The compiler and its drops recurse; schemas are at most 64 deep.
const COMPILE_STACK: usize = 32 << 20;
/// Bits in a word of a mask.
const WORD: usize = 32;

/// Compiles grammars for one model.
pub(super) struct ConstraintFactory {
    parsers: Arc<ParserFactory>,
    dialect: Dialect,
    /// Ids that are no plain text, ascending.
    markers: Arc<[u32]>,
    compiling: Arc<AtomicUsize>,
}

/// Holds one reply.
pub(super) struct Constraint {
    grammar: Grammar,
    phase: Phase,
    /// Never allowed.
    banned: Vec<u32>,
    is_json: bool,
}

enum Grammar {
    /// Only the bans count.
    Free,
    Compiling {
        ready: Receiver<Result<Compiled, String>>,
        until: Instant,
    },
    Ready(Box<Compiled>),
    Refused(String),
}

struct Compiled {
    matcher: Matcher,
    /// The mask of the next step, where it is known.
    mask: Option<SimpleVob>,
}

enum Phase {
    /// The reply may begin with this token to think.
    MayThink(u32),
    /// Holds the end of what was thought.
    Thinks(Vec<u8>),
    Answers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    /// Nothing can follow: the reply is over.
    Complete,
}

impl ConstraintFactory {
    /// # Errors
    /// The vocabulary cannot be used, as a reason.
    pub(super) fn new(tokenizer: &Tokenizer, dialect: Dialect) -> Result<Self, String> {
        let ids = 0..tokenizer.len() as u32;
        // A marker is known by its id alone, so that a grammar cannot name it.
        let marker = |id| [&[TokTrie::SPECIAL_TOKEN_MARKER], format!("<marker {id}>").as_bytes()].concat();
        let word = |id| tokenizer.plain(id).map_or_else(|| marker(id), <[u8]>::to_vec);
        let words: Vec<Vec<u8>> = ids.clone().map(word).collect();
        let markers = ids.filter(|id| tokenizer.plain(*id).is_none() && !tokenizer.is_end(*id)).collect();
        let end = tokenizer.ends().first().copied().unwrap_or(INVALID_TOKEN);
        let mut trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        if !tokenizer.ends().is_empty() {
            trie = trie.with_eos_tokens(tokenizer.ends());
        }
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::general_slices();
        let mut parsers = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
            .map_err(|error| error.to_string())?;
        *parsers.quiet().limits_mut() = limits();
        Ok(Self { parsers: Arc::new(parsers), dialect, markers, compiling: Arc::default() })
    }
}

/// A tenth to a half of llguidance's own, which allow seconds and hundreds of megabytes on a slow core.
fn limits() -> ParserLimits {
    ParserLimits {
        initial_lexer_fuel: 500_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        max_lexer_states: 30_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

impl Constraint {
    /// Begins to compile what `request` asks for. None: the reply is free. `thinks_first`: the prompt has opened the
    /// thoughts already.
    ///
    /// # Errors
    /// [`ProviderError::InvalidRequest`]: beyond the bounds. [`ProviderError::Overloaded`]: too many compile already.
    pub(super) fn new(
        factory: &ConstraintFactory,
        tokenizer: &Tokenizer,
        request: &ChatRequest,
        thinks_first: bool,
    ) -> Result<Option<Self>, ProviderError> {
        let phase = match tokenizer.marker(THINK.0) {
            _ if thinks_first => Phase::Thinks(Vec::new()),
            Some(think) if request.thinking => Phase::MayThink(think),
            _ => Phase::Answers,
        };
        let Some(plan) = plan(request, factory.dialect, tokenizer)? else {
            let opening = tokenizer.marker(factory.dialect.opening());
            let calls_nothing = !request.tools.is_empty() && request.tool_choice == ToolChoice::None;
            let banned = opening.filter(|_| calls_nothing);
            let free = |id| Self { grammar: Grammar::Free, phase, banned: vec![id], is_json: false };
            return Ok(banned.map(free));
        };
        let banned = factory.markers.iter().copied().filter(|id| !plan.markers.contains(id)).collect();
        let is_json = plan.is_json;
        Ok(Some(Self { grammar: factory.compile(plan)?, phase, banned, is_json }))
    }

    /// The grammar is compiled, or will not be: [`Constraint::mask`] does not wait.
    pub(super) fn is_ready(&mut self) -> bool {
        let Grammar::Compiling { ready, until } = &self.grammar else { return true };
        match ready.try_recv() {
            Ok(Ok(compiled)) => self.grammar = Grammar::Ready(Box::new(compiled)),
            Ok(Err(reason)) => self.grammar = Grammar::Refused(reason),
            Err(TryRecvError::Disconnected) => {}
            Err(TryRecvError::Empty) => return Instant::now() >= *until,
        }
        true
    }

    /// Sets the logits of all tokens that cannot come next to minus infinity. Waits where the grammar is still being
    /// compiled.
    ///
    /// # Errors
    /// [`ProviderError::InvalidRequest`]: the grammar is wrong, too large, or cannot go on.
    pub(super) fn mask(&mut self, logits: &mut [f32]) -> Result<(), ProviderError> {
        if matches!(self.phase, Phase::Thinks(_)) {
            return Ok(());
        }
        let Some(compiled) = self.compiled()? else {
            for id in &self.banned {
                forbid(logits, *id);
            }
            return Ok(());
        };
        let mut mask = match compiled.mask.take() {
            Some(mask) => mask,
            None => compiled.matcher.compute_mask_or_eos().map_err(|error| refused(&error.to_string()))?,
        };
        for id in &self.banned {
            mask.disallow_token(*id);
        }
        if mask.is_zero() {
            return Err(refused("no token can come next"));
        }
        if let Phase::MayThink(think) = self.phase {
            mask.allow_token(think);
        }
        let words = mask.as_slice();
        for (place, logits) in logits.chunks_mut(WORD).enumerate() {
            match words.get(place).copied().unwrap_or(0) {
                u32::MAX => {}
                word => {
                    let masked = logits.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                    masked.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
                }
            }
        }
        Ok(())
    }

    /// Goes on by a token, which is no end of turn and adds the bytes `shown` to the reply.
    ///
    /// # Errors
    /// As [`Constraint::mask`].
    pub(super) fn accept(&mut self, token: u32, shown: &[u8]) -> Result<Progress, ProviderError> {
        match &mut self.phase {
            Phase::MayThink(think) if *think == token => {
                self.phase = Phase::Thinks(Vec::new());
                return Ok(Progress::More);
            }
            Phase::Thinks(end) => {
                end.extend_from_slice(shown);
                let close = THINK.1.as_bytes();
                if end.windows(close.len()).any(|window| window == close) {
                    self.phase = Phase::Answers;
                } else {
                    end.drain(..end.len().saturating_sub(close.len() - 1));
                }
                return Ok(Progress::More);
            }
            Phase::MayThink(_) => self.phase = Phase::Answers,
            Phase::Answers => {}
        }
        let is_json = self.is_json;
        let Some(compiled) = self.compiled()? else { return Ok(Progress::More) };
        compiled.mask = None;
        compiled.matcher.consume_token(token).map_err(|error| refused(&error.to_string()))?;
        let is_over = compiled.matcher.is_stopped()
            || is_json
                && matches!(shown.last(), Some(b'}' | b']'))
                && compiled.matcher.is_accepting().map_err(|error| refused(&error.to_string()))?;
        Ok(if is_over { Progress::Complete } else { Progress::More })
    }

    fn compiled(&mut self) -> Result<Option<&mut Compiled>, ProviderError> {
        if let Grammar::Compiling { ready, until } = &self.grammar {
            let compiled = match ready.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(compiled) => compiled,
                Err(RecvTimeoutError::Timeout) => Err(format!("it takes more than {COMPILE_TIME:?} to compile")),
                Err(RecvTimeoutError::Disconnected) => Err("it cannot be compiled".to_owned()),
            };
            self.grammar = match compiled {
                Ok(compiled) => Grammar::Ready(Box::new(compiled)),
                Err(reason) => Grammar::Refused(reason),
            };
        }
        match &mut self.grammar {
            Grammar::Ready(compiled) => Ok(Some(compiled)),
            Grammar::Refused(reason) => Err(refused(reason)),
            Grammar::Free | Grammar::Compiling { .. } => Ok(None),
        }
    }
}

impl ConstraintFactory {
    /// Compiles on a thread of its own.
    fn compile(&self, plan: Plan) -> Result<Grammar, ProviderError> {
        let busy = Compiling::begin(&self.compiling)?;
        let until = Instant::now() + COMPILE_TIME;
        let (done, ready) = sync_channel(1);
        let parsers = Arc::clone(&self.parsers);
        let work = move || {
            let started = Instant::now();
            let mut matcher = Matcher::new(parsers.create_parser(plan.grammar));
            // An error's text may hold the state of the compiler behind its first line.
            let first_line = |error: String| error.lines().next().unwrap_or_default().to_owned();
            let compiled = match matcher.compute_mask() {
                Ok(mask) => Ok(Compiled { matcher, mask: Some(mask) }),
                Err(error) => Err(first_line(error.to_string())),
            };
            tracing::debug!(seconds = started.elapsed().as_secs_f32(), fits = compiled.is_ok(), "grammar compiled");
            drop(busy);
            // Nobody waits any more where the reply was dropped, or the time was up.
            let _ = done.send(compiled);
        };
        let spawned = thread::Builder::new().name("grammar".to_owned()).stack_size(COMPILE_STACK).spawn(work);
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread to compile a grammar");
            return Err(ProviderError::Failed { what: "the grammar compiler".to_owned() });
        }
        Ok(Grammar::Compiling { ready, until })
    }
}

/// One of the [`MOST_COMPILING`].
struct Compiling(Arc<AtomicUsize>);

impl Compiling {
    fn begin(count: &Arc<AtomicUsize>) -> Result<Self, ProviderError> {
        let busy = Self(Arc::clone(count));
        if count.fetch_add(1, Ordering::AcqRel) >= MOST_COMPILING {
            let what = "the grammar compiler".to_owned();
            return Err(ProviderError::Overloaded { what, retry_after: COMPILE_TIME });
        }
        Ok(busy)
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn refused(reason: &str) -> ProviderError {
    invalid("shape", format!("the reply cannot be held to it: {reason}"))
}

fn forbid(logits: &mut [f32], id: u32) {
    if let Some(logit) = logits.get_mut(id as usize) {
        *logit = f32::NEG_INFINITY;
    }
}

#[cfg(test)]
mod tests;
