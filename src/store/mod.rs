//! The database: `session`'s records through sqlx.
