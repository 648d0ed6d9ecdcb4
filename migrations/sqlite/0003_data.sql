-- Whose every row is: the owner's name. 'local' are whoever needs no key, AICHAT_API_KEY and the first admin key.

-- Keys beside AICHAT_API_KEY.
CREATE TABLE api_keys (
    id           TEXT NOT NULL PRIMARY KEY,
    name         TEXT NOT NULL,
    owner        TEXT NOT NULL,
    scope        TEXT NOT NULL CHECK (scope IN ('admin', 'user', 'read')),
    -- SHA-256 of the key, in hexadecimal: a key has 256 random bits, so nothing slower is needed.
    digest       TEXT NOT NULL,
    -- Its first characters, by which its owner knows it.
    prefix       TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    last_used_at TEXT,
    -- NULL: never.
    expires_at   TEXT,
    revoked_at   TEXT
);
-- Every request that carries a key.
CREATE UNIQUE INDEX api_keys_by_digest ON api_keys (digest);
-- Names of living keys differ.
CREATE UNIQUE INDEX api_keys_by_name ON api_keys (name) WHERE revoked_at IS NULL;

-- Browsers that have logged in with a key.
CREATE TABLE logins (
    -- SHA-256 of the cookie's value.
    digest     TEXT NOT NULL PRIMARY KEY,
    -- SHA-256 of the key: a login lasts no longer than its key.
    key_digest TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
);
-- The sweep of those that are over.
CREATE INDEX logins_by_end ON logins (expires_at);

-- Settings that were saved through the API, by name; values are JSON.
CREATE TABLE settings (
    name       TEXT NOT NULL PRIMARY KEY,
    value      TEXT NOT NULL,
    updated_at TEXT NOT NULL
);

-- Answers to requests that may be sent again.
CREATE TABLE idempotent_requests (
    owner      TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    -- SHA-256 of method, path and body.
    digest     TEXT    NOT NULL,
    -- NULL: under way.
    status     INTEGER,
    -- JSON object.
    headers    TEXT    NOT NULL DEFAULT '{}',
    body       TEXT    NOT NULL DEFAULT '',
    created_at TEXT    NOT NULL,
    PRIMARY KEY (owner, key)
);
-- The sweep after a day.
CREATE INDEX idempotent_requests_by_age ON idempotent_requests (created_at);

ALTER TABLE characters ADD COLUMN owner TEXT NOT NULL DEFAULT 'local';
-- Grows with every change: the entity tag.
ALTER TABLE characters ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
-- The name of the uploaded picture's files.
ALTER TABLE characters ADD COLUMN image_file TEXT;
-- Name and description as searches compare them: in lower case and without diacritics.
ALTER TABLE characters ADD COLUMN search_text TEXT NOT NULL DEFAULT '';
UPDATE characters SET search_text = LOWER(name || ' ' || description);
DROP INDEX characters_by_age;
-- The default character: the owner's oldest active one; lists by age.
CREATE INDEX characters_by_age ON characters (owner, created_at, id);
-- Lists by name.
CREATE INDEX characters_by_name ON characters (owner, name, id);
-- Lists by change.
CREATE INDEX characters_by_update ON characters (owner, updated_at, id);
-- Who would be left without a voice.
CREATE INDEX characters_by_voice ON characters (owner, voice) WHERE voice IS NOT NULL;

-- The last number that a slug was given: ids are never used again.
CREATE TABLE character_numbers (
    slug TEXT    NOT NULL PRIMARY KEY,
    last INTEGER NOT NULL
);
INSERT INTO character_numbers (slug, last) VALUES ('mira', 1);

-- Voices that somebody recorded or described; those of an engine itself are not here.
CREATE TABLE voices (
    owner               TEXT    NOT NULL,
    -- Slug of the first name given.
    id                  TEXT    NOT NULL,
    name                TEXT    NOT NULL,
    method              TEXT    NOT NULL CHECK (method IN ('clone', 'description')),
    engine              TEXT    NOT NULL,
    language            TEXT    NOT NULL DEFAULT '',
    speaker_description TEXT    NOT NULL DEFAULT '',
    scene_prompt        TEXT    NOT NULL DEFAULT '',
    transcript          TEXT    NOT NULL DEFAULT '',
    -- The reference recording in DATA_DIR; NULL: described in words.
    file                TEXT,
    -- SHA-256 of the recording: what audio tokens are kept by.
    content_hash        TEXT,
    seconds             REAL,
    status              TEXT    NOT NULL CHECK (status IN ('ready', 'processing', 'failed')),
    error               TEXT,
    version             INTEGER NOT NULL DEFAULT 1,
    created_at          TEXT    NOT NULL,
    updated_at          TEXT    NOT NULL,
    PRIMARY KEY (owner, id)
);
-- Lists by age.
CREATE INDEX voices_by_age ON voices (owner, created_at, id);
-- Lists by name.
CREATE INDEX voices_by_name ON voices (owner, name, id);

-- Recordings that no voice has yet.
CREATE TABLE uploads (
    id           TEXT NOT NULL PRIMARY KEY,
    owner        TEXT NOT NULL,
    file         TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    seconds      REAL NOT NULL,
    transcript   TEXT NOT NULL DEFAULT '',
    language     TEXT NOT NULL DEFAULT '',
    created_at   TEXT NOT NULL
);
-- The sweep after a day.
CREATE INDEX uploads_by_age ON uploads (created_at);
-- How many an owner has.
CREATE INDEX uploads_by_owner ON uploads (owner);

ALTER TABLE conversations ADD COLUMN owner TEXT NOT NULL DEFAULT 'local';
ALTER TABLE conversations ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE conversations ADD COLUMN message_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE conversations ADD COLUMN last_message_at TEXT;
UPDATE conversations SET
    message_count = (SELECT COUNT(*) FROM messages WHERE conversation_id = conversations.id),
    last_message_at = (SELECT MAX(created_at) FROM messages WHERE conversation_id = conversations.id);
DROP INDEX conversations_by_update;
-- Lists, latest first.
CREATE INDEX conversations_by_update ON conversations (owner, updated_at, id);
-- Lists by age.
CREATE INDEX conversations_by_age ON conversations (owner, created_at, id);
-- Lists by title.
CREATE INDEX conversations_by_title ON conversations (owner, title, id);
-- How many a list has.
CREATE INDEX conversations_by_status ON conversations (owner, status);

-- Messages get a number of their own: full-text search needs one that no VACUUM changes.
CREATE TABLE numbered_messages (
    number            INTEGER PRIMARY KEY AUTOINCREMENT,
    id                TEXT    NOT NULL UNIQUE,
    owner             TEXT    NOT NULL,
    conversation_id   TEXT    NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    -- Grows by one within a conversation: the order in which messages were first saved.
    position          INTEGER NOT NULL,
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
    heard_chars       INTEGER CHECK (heard_chars >= 0),
    -- The recording of what was spoken, in DATA_DIR; NULL: none.
    audio_file        TEXT,
    -- JSON: model, provider, timings, tokens, cost, error, language.
    metadata          TEXT    NOT NULL DEFAULT '{}',
    client_message_id TEXT,
    version           INTEGER NOT NULL DEFAULT 1,
    created_at        TEXT    NOT NULL,
    updated_at        TEXT    NOT NULL
);
INSERT INTO numbered_messages
    (id, owner, conversation_id, position, role, character_id, character_name, content, content_type, attachments,
     status, heard_chars, metadata, client_message_id, created_at, updated_at)
SELECT id, 'local', conversation_id, position, role, character_id, character_name, content, content_type, attachments,
       status, heard_chars, metadata, client_message_id, created_at, updated_at
FROM messages ORDER BY conversation_id, position;
DROP TABLE messages;
ALTER TABLE numbered_messages RENAME TO messages;
-- A conversation's latest messages, and the next position.
CREATE UNIQUE INDEX messages_in_order ON messages (conversation_id, position);
-- A message that a client sends twice is stored once.
CREATE UNIQUE INDEX messages_by_client ON messages (conversation_id, client_message_id)
    WHERE client_message_id IS NOT NULL;
-- Whose a recording's file is: the sweep of those that are nobody's.
CREATE INDEX messages_by_recording ON messages (audio_file) WHERE audio_file IS NOT NULL;

-- Full-text search.
CREATE VIRTUAL TABLE message_texts USING fts5
    (content, content = 'messages', content_rowid = 'number', tokenize = 'unicode61 remove_diacritics 2');
INSERT INTO message_texts (rowid, content) SELECT number, content FROM messages;
CREATE TRIGGER messages_inserted AFTER INSERT ON messages BEGIN
    INSERT INTO message_texts (rowid, content) VALUES (new.number, new.content);
END;
CREATE TRIGGER messages_deleted AFTER DELETE ON messages BEGIN
    INSERT INTO message_texts (message_texts, rowid, content) VALUES ('delete', old.number, old.content);
END;
CREATE TRIGGER messages_changed AFTER UPDATE OF content ON messages BEGIN
    INSERT INTO message_texts (message_texts, rowid, content) VALUES ('delete', old.number, old.content);
    INSERT INTO message_texts (rowid, content) VALUES (new.number, new.content);
END;
-- Titles are found by a number as well, which no VACUUM changes.
ALTER TABLE conversations ADD COLUMN number INTEGER;
UPDATE conversations SET number = rowid;
CREATE UNIQUE INDEX conversations_by_number ON conversations (number);
CREATE VIRTUAL TABLE title_texts USING fts5 (title, tokenize = 'unicode61 remove_diacritics 2');
INSERT INTO title_texts (rowid, title) SELECT number, title FROM conversations WHERE title <> '';
CREATE TRIGGER titles_inserted AFTER INSERT ON conversations BEGIN
    UPDATE conversations SET number = (SELECT COALESCE(MAX(number), 0) + 1 FROM conversations) WHERE id = new.id;
    INSERT INTO title_texts (rowid, title) SELECT number, title FROM conversations WHERE id = new.id AND title <> '';
END;
CREATE TRIGGER titles_deleted AFTER DELETE ON conversations WHEN old.title <> '' BEGIN
    DELETE FROM title_texts WHERE rowid = old.number;
END;
CREATE TRIGGER titles_changed AFTER UPDATE OF title ON conversations WHEN old.title <> new.title BEGIN
    DELETE FROM title_texts WHERE rowid = old.number;
    INSERT INTO title_texts (rowid, title) SELECT new.number, new.title WHERE new.title <> '';
END;

ALTER TABLE usage ADD COLUMN owner TEXT NOT NULL DEFAULT 'local';
-- One owner's sums of a span of days.
CREATE INDEX usage_by_owner ON usage (owner, day);
