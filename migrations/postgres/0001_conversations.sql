-- Somebody to talk to: a prompt with a voice.
CREATE TABLE characters (
    id            TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL,
    description   TEXT    NOT NULL DEFAULT '',
    system_prompt TEXT    NOT NULL DEFAULT '',
    personality   TEXT    NOT NULL DEFAULT '',
    -- NULL: the speech engine's default voice.
    voice         TEXT,
    image_url     TEXT,
    -- NULL: the default language model.
    model         TEXT,
    -- JSON object: sampling settings that differ from the defaults.
    parameters    TEXT    NOT NULL DEFAULT '{}',
    -- How readily the character speaks up among several, 0 to 1.
    talkativeness DOUBLE PRECISION    NOT NULL DEFAULT 0.5,
    -- JSON array of ISO 639-1 codes.
    languages     TEXT    NOT NULL DEFAULT '[]',
    is_active     BIGINT NOT NULL DEFAULT 1 CHECK (is_active IN (0, 1)),
    created_at    TEXT    NOT NULL,
    updated_at    TEXT    NOT NULL
);
-- The default character: the oldest active one.
CREATE INDEX characters_by_age ON characters (is_active, created_at, id);

CREATE TABLE conversations (
    id         TEXT    NOT NULL PRIMARY KEY,
    title      TEXT    NOT NULL DEFAULT '',
    type       TEXT    NOT NULL DEFAULT 'text' CHECK (type IN ('text', 'image', 'mixed')),
    status     TEXT    NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'archived', 'deleted')),
    private    BIGINT NOT NULL DEFAULT 0 CHECK (private IN (0, 1)),
    -- JSON object.
    settings   TEXT    NOT NULL DEFAULT '{}',
    created_at TEXT    NOT NULL,
    updated_at TEXT    NOT NULL
);
-- Lists: by status, latest first.
CREATE INDEX conversations_by_update ON conversations (status, updated_at, id);

-- Who takes part, in order.
CREATE TABLE conversation_characters (
    conversation_id TEXT    NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    character_id    TEXT    NOT NULL REFERENCES characters (id) ON DELETE CASCADE,
    position        BIGINT NOT NULL,
    PRIMARY KEY (conversation_id, character_id)
);
-- A conversation's characters in order.
CREATE UNIQUE INDEX conversation_characters_in_order ON conversation_characters (conversation_id, position);
-- A character's conversations, and the cascade of its deletion.
CREATE INDEX conversation_characters_by_character ON conversation_characters (character_id);

CREATE TABLE messages (
    id                TEXT    NOT NULL PRIMARY KEY,
    conversation_id   TEXT    NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    -- Grows by one within a conversation: the order in which messages were first saved.
    position          BIGINT NOT NULL,
    role              TEXT    NOT NULL CHECK (role IN ('user', 'assistant', 'system', 'tool')),
    -- No reference: a message outlives its character and keeps its name.
    character_id      TEXT,
    character_name    TEXT,
    content           TEXT    NOT NULL,
    content_type      TEXT    NOT NULL DEFAULT 'text' CHECK (content_type IN ('text', 'audio', 'image', 'mixed')),
    -- JSON array.
    attachments       TEXT    NOT NULL DEFAULT '[]',
    status            TEXT    NOT NULL CHECK (status IN ('pending', 'processing', 'completed', 'failed')),
    -- Characters of content that the user heard; NULL: all.
    heard_chars       BIGINT CHECK (heard_chars >= 0),
    audio_url         TEXT,
    -- JSON: model, provider, timings, tokens, cost, error, language.
    metadata          TEXT    NOT NULL DEFAULT '{}',
    client_message_id TEXT,
    created_at        TEXT    NOT NULL,
    updated_at        TEXT    NOT NULL
);
-- A conversation's latest messages, and the next position.
CREATE UNIQUE INDEX messages_in_order ON messages (conversation_id, position);
-- A message that a client sends twice is stored once.
CREATE UNIQUE INDEX messages_by_client ON messages (conversation_id, client_message_id)
    WHERE client_message_id IS NOT NULL;

INSERT INTO characters (id, name, description, system_prompt, created_at, updated_at)
VALUES (
    'mira-001',
    'Mira',
    'A warm, concise voice assistant.',
    'You are Mira, a warm and thoughtful friend. Answer first, in a few short sentences, and add detail only if it helps. If you do not know something, say so.',
    to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
    to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
);
