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
    status     BIGINT,
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
ALTER TABLE characters ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
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
    last BIGINT NOT NULL
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
    seconds             DOUBLE PRECISION,
    status              TEXT    NOT NULL CHECK (status IN ('ready', 'processing', 'failed')),
    error               TEXT,
    version             BIGINT NOT NULL DEFAULT 1,
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
    seconds      DOUBLE PRECISION NOT NULL,
    transcript   TEXT NOT NULL DEFAULT '',
    language     TEXT NOT NULL DEFAULT '',
    created_at   TEXT NOT NULL
);
-- The sweep after a day.
CREATE INDEX uploads_by_age ON uploads (created_at);
-- How many an owner has.
CREATE INDEX uploads_by_owner ON uploads (owner);

ALTER TABLE conversations ADD COLUMN owner TEXT NOT NULL DEFAULT 'local';
ALTER TABLE conversations ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
ALTER TABLE conversations ADD COLUMN message_count BIGINT NOT NULL DEFAULT 0;
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

ALTER TABLE messages ADD COLUMN owner TEXT NOT NULL DEFAULT 'local';
-- The recording of what was spoken, in DATA_DIR; NULL: none.
ALTER TABLE messages ADD COLUMN audio_file TEXT;
-- Whose a recording's file is: the sweep of those that are nobody's.
CREATE INDEX messages_by_recording ON messages (audio_file) WHERE audio_file IS NOT NULL;
ALTER TABLE messages ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
ALTER TABLE messages DROP COLUMN audio_url;

-- Messages get a number of their own: search tells the latest first.
ALTER TABLE messages ADD COLUMN number BIGINT GENERATED ALWAYS AS IDENTITY;

-- Full-text search, by the same words as SQLite's: without diacritics, cut at every sign, so that no address, number or
-- path is one long word.
CREATE FUNCTION search_words (said TEXT) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $words$
    SELECT to_tsvector('pg_catalog.simple', translate(
        regexp_replace(normalize(said, NFD), '[\u0300-\u036F]', '', 'g'),
        '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~',
        '                                '))
$words$;
CREATE INDEX messages_by_text ON messages USING gin (search_words(content));
CREATE INDEX conversations_by_words ON conversations USING gin (search_words(title));
-- As SQLite sorts, whatever the database's own order is.
ALTER TABLE conversations ALTER COLUMN title TYPE TEXT COLLATE "C";

ALTER TABLE usage ADD COLUMN owner TEXT NOT NULL DEFAULT 'local';
-- One owner's sums of a span of days.
CREATE INDEX usage_by_owner ON usage (owner, day);
