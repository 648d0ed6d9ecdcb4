-- One row per request to a model. A row in state 'reserved' is under way; one that is still so at the next start was cut off,
-- and what was set aside for it counts as spent.
CREATE TABLE usage (
    id                TEXT    NOT NULL PRIMARY KEY,
    state             TEXT    NOT NULL CHECK (state IN ('reserved', 'settled', 'lost')),
    -- 2026-11-21: the day in UTC on which it began, and the budgets' period.
    day               TEXT    NOT NULL,
    created_at        TEXT    NOT NULL,
    capability        TEXT    NOT NULL,
    model             TEXT    NOT NULL,
    -- local, openai, openrouter.
    provider          TEXT    NOT NULL,
    conversation_id   TEXT,
    key_name          TEXT,
    request_id        TEXT,
    outcome           TEXT    NOT NULL DEFAULT '',
    prompt_tokens     BIGINT NOT NULL DEFAULT 0,
    cached_tokens     BIGINT NOT NULL DEFAULT 0,
    completion_tokens BIGINT NOT NULL DEFAULT 0,
    characters        BIGINT NOT NULL DEFAULT 0,
    audio_ms          BIGINT NOT NULL DEFAULT 0,
    first_item_ms     BIGINT,
    total_ms          BIGINT NOT NULL DEFAULT 0,
    -- Milliseconds that a local model worked on it.
    device_ms         BIGINT NOT NULL DEFAULT 0,
    -- Billionths of a US dollar.
    reserved_nanousd  BIGINT NOT NULL DEFAULT 0,
    cost_nanousd      BIGINT NOT NULL DEFAULT 0,
    estimated         BIGINT NOT NULL DEFAULT 0 CHECK (estimated IN (0, 1))
);
-- Sums by day, and of a span of days by anything else.
CREATE INDEX usage_by_day ON usage (day);
-- What a crash left behind.
CREATE INDEX usage_under_way ON usage (state) WHERE state = 'reserved';

-- What is spent and set aside in each budget's period: '2026-11-21' and '2026-11'.
CREATE TABLE spending (
    period           TEXT    NOT NULL PRIMARY KEY,
    spent_nanousd    BIGINT NOT NULL DEFAULT 0,
    reserved_nanousd BIGINT NOT NULL DEFAULT 0
);
