//! What every text of a request must be.

use std::ops::RangeInclusive;

use crate::api::problem::Problem;

/// Checks a text's length in characters and that it holds no NUL, which no database keeps alike.
///
/// # Errors
/// Names the field.
pub(super) fn check(field: &str, text: &str, length: RangeInclusive<usize>) -> Result<(), Problem> {
    let (least, most) = (*length.start(), *length.end());
    let is_long_enough = if least == 1 { !text.trim().is_empty() } else { text.chars().count() >= least };
    if !is_long_enough || text.chars().nth(most).is_some() {
        return Err(Problem::bad_field(field, format!("must have {least} to {most} characters")));
    }
    if text.contains('\0') {
        return Err(Problem::bad_field(field, "must not hold the character U+0000"));
    }
    Ok(())
}
