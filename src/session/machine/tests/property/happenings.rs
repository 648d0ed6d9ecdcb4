//! What can happen, how often, and how it is drawn.

use super::*;

/// What can happen.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    VoiceBegins,
    VoiceGoesOn,
    VoiceIsHeard,
    VoiceIsNothing,
    VoiceFails,
    Committed,
    Text,
    SpeakUp,
    NextSpeaker,
    Regenerate,
    Interrupt,
    Acknowledge,
    Settings,
    Characters,
    LookedUp,
    /// Over REST: a message is added or changed, deleted, or others take part.
    Elsewhere,
    Deleted,
    Recast,
    MindWrites,
    MindEnds,
    MindFails,
    MouthSends,
    MouthEnds,
    MouthFails,
    NoteWritten,
    Titled,
    Stored,
    Woken,
}

/// How often each is drawn: a reply needs much to come to its end.
const WEIGHTS: [(u32, Kind); 28] = [
    (3, Kind::VoiceBegins),
    (3, Kind::VoiceGoesOn),
    (3, Kind::VoiceIsHeard),
    (1, Kind::VoiceIsNothing),
    (1, Kind::VoiceFails),
    (1, Kind::Committed),
    (3, Kind::Text),
    (1, Kind::SpeakUp),
    (1, Kind::NextSpeaker),
    (2, Kind::Regenerate),
    (1, Kind::Interrupt),
    (4, Kind::Acknowledge),
    (1, Kind::Settings),
    (1, Kind::Characters),
    (2, Kind::LookedUp),
    (2, Kind::Elsewhere),
    (1, Kind::Deleted),
    (1, Kind::Recast),
    (14, Kind::MindWrites),
    (5, Kind::MindEnds),
    (1, Kind::MindFails),
    (14, Kind::MouthSends),
    (5, Kind::MouthEnds),
    (1, Kind::MouthFails),
    (2, Kind::NoteWritten),
    (2, Kind::Titled),
    (4, Kind::Stored),
    (1, Kind::Woken),
];

/// One thing that happens, and which of its kind, as numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Happening {
    pub(super) kind: Kind,
    /// Which reply: 0 is the audible one, 1 the one that waits, more are older ones.
    pub(super) which: usize,
    pub(super) number: u64,
    /// Milliseconds since what happened before.
    pub(super) passed: u64,
}

pub(super) fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let kinds = prop::sample::select(
        WEIGHTS.iter().flat_map(|(weight, kind)| std::iter::repeat_n(*kind, *weight as usize)).collect::<Vec<_>>(),
    );
    let which = prop_oneof![10 => Just(0_usize), 5 => Just(1), 1 => 2_usize..5];
    let passed = prop_oneof![4 => 0_u64..60, 2 => 60_u64..400, 1 => 400_u64..2500];
    let one = (kinds, which, 0_u64..1500, passed);
    let one = one.prop_map(|(kind, which, number, passed)| Happening { kind, which, number, passed });
    prop::collection::vec(one, 1..80)
}

pub(super) const POLICIES: [TurnTaking; 4] =
    [TurnTaking::Mention, TurnTaking::All, TurnTaking::Natural, TurnTaking::Manual];

pub(super) fn terms(number: u64) -> SettingsPatch {
    let output = number.is_multiple_of(4).then_some(OutputKind::Text);
    SettingsPatch { output, ..SettingsPatch::default() }
}

pub(super) fn ids(number: u64) -> Vec<String> {
    let all = ["olivia-001", "max-001", "zoe-001", "nobody"].map(str::to_owned);
    all.into_iter().cycle().skip(number as usize % 4).take(number as usize / 4 % 3).collect()
}

pub(super) fn failed(what: &str) -> ProviderError {
    ProviderError::Failed { what: what.to_owned() }
}
