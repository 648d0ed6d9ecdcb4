-- Sessions that a client can come back to.
CREATE TABLE sessions (
    id              TEXT NOT NULL PRIMARY KEY,
    owner           TEXT NOT NULL,
    conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    -- SHA-256 of what its clients must know.
    secret_digest   TEXT NOT NULL,
    -- JSON object: what of the session is not told in its messages.
    state           TEXT NOT NULL DEFAULT '{}',
    updated_at      TEXT NOT NULL
);
-- A conversation's sessions, and the cascade of its deletion.
CREATE INDEX sessions_by_conversation ON sessions (conversation_id);
-- The sweep of those that are too old.
CREATE INDEX sessions_by_age ON sessions (updated_at);

-- What a session told, in pages: all messages between two of its numbers.
CREATE TABLE session_pages (
    session_id TEXT    NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    first_seq  INTEGER NOT NULL,
    last_seq   INTEGER NOT NULL,
    -- JSON array.
    messages   TEXT    NOT NULL,
    PRIMARY KEY (session_id, first_seq)
);

-- Replies that a crash has cut off.
CREATE INDEX messages_under_way ON messages (status) WHERE status IN ('pending', 'processing');
