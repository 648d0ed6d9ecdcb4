//! A request's JSON, read within a limit of time and then field by field, so that every error names its field.
//!
//! Fields that nobody asks for are ignored, as OpenAI's own server ignores most; `null` is the same as absent.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tokio::time::timeout;
use tower_http::timeout::DeadlineBody;

use crate::api::problem::Problem;

/// For a whole body of the largest size, on a slow line.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Objects and lists of one body, at most; so many are free, and then one for so many bytes.
const MOST_OBJECTS: usize = 400_000;
const FREE_OBJECTS: usize = 20_000;
const BYTES_AN_OBJECT: usize = 40;
const MOST_VALUES: usize = 2_500_000;

/// Ends whatever body takes longer than this, a byte at a time or all at once.
pub(super) async fn within(State(time): State<Duration>, request: Request, next: Next) -> Response {
    next.run(request.map(|body| Body::new(DeadlineBody::new(time, body)))).await
}

/// A body that is one JSON object.
pub(super) struct JsonBody(Map<String, Value>);

impl JsonBody {
    /// The whole body as one type.
    ///
    /// # Errors
    /// Names the field that is missing or wrong.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<T, Problem> {
        serde_path_to_error::deserialize(Value::Object(self.0)).map_err(|error| {
            let message = error.inner().to_string();
            let path = error.path().to_string();
            // A field that is missing is named in the message alone.
            let missing = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
            match missing {
                Some(field) => Problem::bad_field(field, "is missing"),
                None => Problem::bad_field(path, message),
            }
        })
    }

    pub(super) fn fields(&self) -> Fields<'_> {
        Fields { path: String::new(), entries: &self.0 }
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    /// The content type must say JSON: a page of another origin cannot send that without asking first.
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !says_json(request.headers()) {
            let detail = "send JSON, with the header \"Content-Type: application/json\"";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", detail));
        }
        let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body took too long to come");
        let read = timeout(BODY_TIME, Bytes::from_request(request, state)).await.map_err(late)?;
        let bytes = read.map_err(|refusal| match refusal.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the request is too large")
            }
            status => Problem::new(status, "bad_body", "the body could not be read"),
        })?;
        if is_dense(&bytes) {
            let detail = "the body has too many objects, lists and values for its length";
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail));
        }
        let bad_json = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "bad_json", detail);
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(entries)) => Ok(Self(entries)),
            Ok(_) => Err(bad_json("the body must be a JSON object".to_owned())),
            Err(error) => Err(bad_json(format!("the body is not JSON: {error}"))),
        }
    }
}

/// For a field that may be emptied: a null that was sent is Some(None), an absence None.
pub(super) fn sent<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// For a text that may be empty: a null that was sent empties it.
pub(super) fn emptied<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    value: D,
) -> Result<Option<T>, D::Error> {
    Option::<T>::deserialize(value).map(|sent| Some(sent.unwrap_or_default()))
}

/// Whether a JSON text holds more than anything that is sent for a reason: read, each object takes hundreds of bytes and
/// each value dozens, however few it took to write.
fn is_dense(text: &[u8]) -> bool {
    let (mut objects, mut values) = (0, 0);
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            _ if is_text => {}
            b'{' | b'[' => objects += 1,
            b',' => values += 1,
            _ => {}
        }
    }
    objects > MOST_OBJECTS.min(FREE_OBJECTS + text.len() / BYTES_AN_OBJECT) || values > MOST_VALUES
}

fn says_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// An object of a request, which knows where in it it is.
pub(super) struct Fields<'a> {
    path: String,
    entries: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Where a field of this object is, as `messages[0].role`.
    pub(super) fn place(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The field is wrong.
    pub(super) fn wrong(&self, name: &str, message: impl std::fmt::Display) -> Problem {
        Problem::bad_field(self.place(name), message)
    }

    pub(super) fn value(&self, name: &str) -> Option<&'a Value> {
        self.entries.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Problem> {
        self.read(name, "a string", Value::as_str)
    }

    pub(super) fn required_text(&self, name: &str) -> Result<&'a str, Problem> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Problem> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f32>, Problem> {
        self.read(name, "a number", |value| value.as_f64().map(|number| number as f32))
    }

    /// An integer; a negative one becomes a large one.
    pub(super) fn integer(&self, name: &str) -> Result<Option<u64>, Problem> {
        self.read(name, "an integer", |value| value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned)))
    }

    /// An integer within `range`.
    pub(super) fn whole(&self, name: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, Problem> {
        let expected = match (*range.start(), *range.end()) {
            (least, usize::MAX) => format!("an integer of at least {least}"),
            (least, most) => format!("an integer from {least} to {most}"),
        };
        let within = |value: &Value| usize::try_from(value.as_u64()?).ok().filter(|number| range.contains(number));
        self.read(name, &expected, within)
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, Problem> {
        let entries = self.read(name, "an object", Value::as_object)?;
        Ok(entries.map(|entries| Fields { path: self.place(name), entries }))
    }

    pub(super) fn required_object(&self, name: &str) -> Result<Fields<'a>, Problem> {
        self.object(name)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn list(&self, name: &str) -> Result<Option<&'a [Value]>, Problem> {
        self.read(name, "a list", |value| value.as_array().map(Vec::as_slice))
    }

    /// A list of objects. Absent: empty.
    pub(super) fn objects(&self, name: &str) -> Result<Vec<Fields<'a>>, Problem> {
        let place = |index| format!("{}[{index}]", self.place(name));
        let object = |(index, value): (usize, &'a Value)| match value.as_object() {
            Some(entries) => Ok(Fields { path: place(index), entries }),
            None => Err(Problem::bad_field(place(index), "must be an object")),
        };
        self.list(name)?.unwrap_or_default().iter().enumerate().map(object).collect()
    }

    /// A string, or a list of strings. Absent: empty.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Problem> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let texts = |value: &'a Value| match value {
            Value::Array(items) => items.iter().map(text).collect(),
            one => text(one).map(|text| vec![text]),
        };
        Ok(self.read(name, "a string or a list of strings", texts)?.unwrap_or_default())
    }

    pub(super) fn missing(&self, name: &str) -> Problem {
        self.wrong(name, "is required")
    }

    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.value(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.wrong(name, format!("must be {expected}")))
    }
}
