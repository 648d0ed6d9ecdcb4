//! What commands print: results on standard output, progress on standard error.

use std::io::{self, Write};

use serde_json::Value;

/// Prints a line of a result. A closed pipe (`aichat … | head`) is not an error.
pub(super) fn line(text: &str) -> anyhow::Result<()> {
    piece(&format!("{text}\n"))
}

/// Prints part of a result at once.
pub(super) fn piece(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

pub(super) fn json(value: &Value) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Shows what is going on, to people only.
pub(super) fn note(text: &str) {
    // Standard error may be closed; a note that nobody can read is no reason to fail.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
