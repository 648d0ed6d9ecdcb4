//! Cuts phonemes into pieces that are spoken one after another.
//!
//! The model normalises over a whole utterance, so a stream of speech is a stream of pieces. A piece ends where a
//! speaker would breathe: at the best mark within reach, by upstream's waterfall (sentence, clause, comma). Pieces of
//! a few symbols sound rushed, so they join their neighbours.

use std::collections::VecDeque;

use super::phonemes::{Phonemes, SpokenWord, Symbol};

/// What the model takes.
const LONGEST: usize = 510;
/// Where a piece should end: some 12 seconds, so that audio flows and an urgent request waits a little at most.
const COMFORTABLE: usize = 200;
/// A piece that somebody waits for in silence ends at its first mark within this.
const FIRST: usize = 90;
/// Shorter pieces sound wrong.
const SHORTEST: usize = 20;

/// Part of what is to be said, at most [`LONGEST`] symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) symbols: Vec<Symbol>,
    /// Ranges count from the piece's first symbol.
    pub(super) words: Vec<SpokenWord>,
}

/// Cuts; `hurry` makes the first piece short.
pub(super) fn cut(phonemes: Phonemes, hurry: bool) -> VecDeque<Piece> {
    let Phonemes { symbols, words } = phonemes;
    let mut words = words.into_iter().peekable();
    let mut pieces = VecDeque::new();
    let mut start = 0;
    while start < symbols.len() {
        let end = start + end_of_piece(&symbols[start..], hurry && start == 0);
        let mut own = Vec::new();
        // A word that a cut splits (none has 510 symbols but nonsense) counts where it begins.
        while let Some(word) = words.next_if(|word| word.symbols.start < end) {
            let symbols = word.symbols.start - start..word.symbols.end.min(end) - start;
            own.push(SpokenWord { symbols, ..word });
        }
        let piece = trimmed(Piece { symbols: symbols[start..end].to_vec(), words: own });
        if !piece.words.is_empty() {
            pieces.push_back(piece);
        }
        start = end;
    }
    pieces
}

/// Without the spaces at its ends.
fn trimmed(mut piece: Piece) -> Piece {
    let is_sound = |symbol: &Symbol| symbol.character != ' ';
    let end = piece.symbols.iter().rposition(is_sound).map_or(0, |last| last + 1);
    piece.symbols.truncate(end);
    let start = piece.symbols.iter().position(is_sound).unwrap_or(0);
    piece.symbols.drain(..start);
    for word in &mut piece.words {
        word.symbols = word.symbols.start - start..word.symbols.end.min(end) - start;
    }
    piece
}

/// Where the piece that begins with `symbols` ends.
fn end_of_piece(symbols: &[Symbol], hurry: bool) -> usize {
    let marks = |wanted: &'static [char], limit: usize| {
        let ends = move |index: &usize| ends_at(symbols, *index, wanted);
        (SHORTEST..=limit.min(symbols.len())).filter(ends)
    };
    let leaves_enough = |end: &usize| symbols.len() - end >= SHORTEST || *end == symbols.len();
    if hurry && let Some(end) = marks(&ANY, FIRST).find(leaves_enough) {
        return end;
    }
    if symbols.len() <= COMFORTABLE {
        return symbols.len();
    }
    let waterfall = [&SENTENCE[..], &CLAUSE[..], &BREATH[..]];
    let comfortable = waterfall.iter().find_map(|wanted| marks(wanted, COMFORTABLE).rfind(leaves_enough));
    if let Some(end) = comfortable {
        return end;
    }
    if symbols.len() <= LONGEST {
        return symbols.len();
    }
    let space = || (1..LONGEST).rev().find(|index| symbols[*index].character == ' ');
    marks(&ANY, LONGEST).next().or_else(space).unwrap_or(LONGEST)
}

const SENTENCE: [char; 4] = ['.', '!', '?', '…'];
const CLAUSE: [char; 3] = [':', ';', '—'];
const BREATH: [char; 1] = [','];
const ANY: [char; 8] = ['.', '!', '?', '…', ':', ';', '—', ','];

/// Whether a piece may end before `index`: after a wanted mark and the quotes that close with it, before a space.
fn ends_at(symbols: &[Symbol], index: usize, wanted: &[char]) -> bool {
    let free = symbols.get(index).is_none_or(|next| next.character == ' ');
    let mut before = symbols[..index].iter().rev().map(|symbol| symbol.character);
    free && before.find(|character| !matches!(character, '"' | '”' | ')')).is_some_and(|last| wanted.contains(&last))
}

/// How long a pause belongs after a piece, in milliseconds, by the mark that it ends with.
pub(super) fn pause_after(piece: &Piece) -> u64 {
    let mut marks = piece.symbols.iter().rev().map(|symbol| symbol.character);
    match marks.find(|character| !matches!(character, '"' | '”' | ')' | ' ')) {
        Some(mark) if SENTENCE.contains(&mark) => 300,
        Some(mark) if CLAUSE.contains(&mark) => 200,
        Some(mark) if BREATH.contains(&mark) => 150,
        _ => 40,
    }
}
