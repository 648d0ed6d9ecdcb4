//! Who takes part in a session, and who of them speaks next.

use std::sync::Arc;

use serde_json::Value;

use crate::session::floor::{Floor, Seat};
use crate::session::record::Character;
use crate::session::settings::{BadField, Settings, SettingsPatch, TurnTaking};

/// A character and the settings of its replies.
#[derive(Clone, Debug)]
pub(in crate::session) struct Player {
    pub(in crate::session) character: Character,
    pub(in crate::session) settings: Settings,
}

/// Those who take part, in order. Never empty.
pub(super) struct Cast {
    players: Vec<Arc<Player>>,
    floor: Floor,
}

/// What the settings of all who take part are made of, each over the one before it; a character's own are over the
/// server's.
#[derive(Clone, Debug, Default)]
pub(in crate::session) struct Base {
    /// The server's.
    pub(in crate::session) settings: Settings,
    /// What the conversation's sessions begin with.
    pub(in crate::session) stored: SettingsPatch,
    /// What clients have set since.
    pub(in crate::session) changed: SettingsPatch,
    /// The codes that the speech recogniser knows.
    pub(in crate::session) languages: Vec<String>,
}

impl Base {
    /// The conversation's sessions begin with `settings` from now on. Whether they did not before.
    pub(in crate::session) fn store(&mut self, conversation_id: &str, settings: &Value) -> bool {
        let stored = self.read(settings).unwrap_or_else(|error| {
            tracing::warn!(conversation_id, %error, "a conversation's settings are wrong and are ignored");
            SettingsPatch::default()
        });
        let before = std::mem::replace(&mut self.stored, stored);
        self.stored != before
    }

    /// What somebody has stored, perhaps beside another speech recogniser.
    fn read(&self, settings: &Value) -> Result<SettingsPatch, BadField> {
        let mut patch = SettingsPatch::read(settings)?;
        if let Err(error) = patch.check_languages(&self.languages) {
            tracing::warn!(%error, "stored languages are ignored");
            patch.languages = None;
        }
        Ok(patch)
    }

    /// A character with what holds for its replies.
    pub(in crate::session) fn player(&self, character: Character) -> Player {
        let settings = self.shared(&character).of(&character.id);
        Player { character, settings }
    }

    /// What holds for all, where this character is the first.
    pub(in crate::session) fn shared(&self, first: &Character) -> Settings {
        let settings = self.own(first);
        // Both were checked when they came.
        let over = |settings: Settings, patch| settings.patched(patch).unwrap_or(settings);
        [&self.stored, &self.changed].into_iter().fold(settings, over)
    }

    /// The server's settings with the character's own on top.
    fn own(&self, character: &Character) -> Settings {
        let settings = &self.settings;
        if character.parameters.is_null() {
            return settings.clone();
        }
        // What is set for single ones is none of its business.
        let own = self.read(&character.parameters).map(|patch| SettingsPatch { characters: None, ..patch });
        own.and_then(|patch| settings.patched(&patch)).unwrap_or_else(|error| {
            tracing::warn!(character = character.id, %error, "a character's parameters are wrong and are ignored");
            settings.clone()
        })
    }
}

fn seat(player: &Player) -> Seat {
    Seat { name: player.character.name.clone(), talkativeness: player.character.talkativeness }
}

impl Cast {
    pub(super) fn new(players: Vec<Player>) -> Self {
        let floor = Floor::new(players.iter().map(seat).collect());
        Self { players: players.into_iter().map(Arc::new).collect(), floor }
    }

    /// These take part from now on. Answers the new place of everyone who was there; none of who left.
    pub(super) fn replace(&mut self, players: Vec<Player>) -> Vec<Option<usize>> {
        let place = |old: &Arc<Player>| players.iter().position(|new| new.character.id == old.character.id);
        let moved: Vec<Option<usize>> = self.players.iter().map(place).collect();
        self.floor.reseat(players.iter().map(seat).collect(), &moved);
        self.players = players.into_iter().map(Arc::new).collect();
        moved
    }

    pub(super) fn characters(&self) -> impl Iterator<Item = &Character> {
        self.players.iter().map(|player| &player.character)
    }

    pub(super) fn player(&self, speaker: usize) -> Arc<Player> {
        Arc::clone(&self.players[speaker])
    }

    /// Whoever spoke last, or would speak first.
    pub(super) fn likely(&self) -> (usize, Arc<Player>) {
        let speaker = self.floor.last().unwrap_or(0);
        (speaker, self.player(speaker))
    }

    pub(super) fn find(&self, character_id: &str) -> Option<usize> {
        self.players.iter().position(|player| player.character.id == character_id)
    }

    /// The names of all others. Empty where nobody else takes part.
    pub(super) fn others(&self, speaker: usize) -> Vec<String> {
        let other = |(seat, player): (usize, &Arc<Player>)| (seat != speaker).then(|| player.character.name.clone());
        self.players.iter().enumerate().filter_map(other).collect()
    }

    /// Everyone has the settings that `base` comes to now.
    pub(super) fn settle(&mut self, base: &Base) {
        for player in &mut self.players {
            *player = Arc::new(base.player(player.character.clone()));
        }
    }

    /// Who answers what the user said.
    pub(super) fn answer(&mut self, policy: TurnTaking, text: &str) -> Vec<usize> {
        self.floor.answer(policy, text)
    }

    /// Whom a reply calls on.
    pub(super) fn follow(&mut self, policy: TurnTaking, speaker: usize, text: &str) -> Option<usize> {
        self.floor.follow(policy, speaker, text)
    }

    /// Notes that a character spoke before this session.
    pub(super) fn has_spoken(&mut self, character_id: &str) {
        if let Some(speaker) = self.find(character_id) {
            self.floor.has_spoken(speaker);
        }
    }

    pub(super) fn takes_floor(&mut self, speaker: usize) {
        self.floor.takes(speaker);
    }
}
