//! The API's description in OpenAPI 3.1, `/openapi.json`, and a page to read it, `/docs`, which needs no other server.

use utoipa::OpenApi;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};

/// What is not in the routes' own descriptions.
#[derive(OpenApi)]
#[openapi(
    info(title = "aichat", description = "Voice chat with characters, on your own machine."),
    security(("key" = []), ("cookie" = [])),
    modifiers(&Keys)
)]
pub(super) struct Description;

/// One event of a stream.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what a stream's events have in common")]
pub(super) struct SentEvent {
    /// What `data` is of; absent: a message.
    event: Option<String>,
    /// JSON, or `[DONE]` at the end of OpenAI's streams.
    data: String,
}

/// Bytes that are no text.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "describes bodies")]
pub(super) struct Binary(Vec<u8>);

/// A seed or null: any whole number of 64 bits, which no format of OpenAPI says.
pub(super) fn seed() -> Object {
    let types = SchemaType::from_iter([Type::Integer, Type::Null]);
    ObjectBuilder::new().schema_type(types).minimum(Some(0)).build()
}

/// The description as a client can read it: OpenAPI has no word for a parameter that may hold slashes, and wants ids of
/// operations, of which programs make names, to be unique.
pub(super) fn readable(mut document: Document) -> Document {
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    for (path, item) in &mut document.paths.paths {
        let methods =
            [("get", &mut item.get), ("put", &mut item.put), ("post", &mut item.post), ("delete", &mut item.delete)];
        for (method, operation) in methods {
            if let Some(operation) = operation {
                operation.operation_id = Some(operation_id(method, path));
            }
        }
    }
    document
}

/// `get_conversations_id_export` of `GET /api/conversations/{id}/export`.
fn operation_id(method: &str, path: &str) -> String {
    let path = path.strip_prefix("/api").unwrap_or(path);
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}

struct Keys;

impl utoipa::Modify for Keys {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        let key = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("key", key);
        let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new("aichat_login")));
        components.add_security_scheme("cookie", cookie);
    }
}

#[cfg(test)]
#[path = "openapi_tests.rs"]
mod tests;
