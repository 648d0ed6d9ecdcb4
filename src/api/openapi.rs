//! The API's description in OpenAPI 3.1, `/openapi.json`, and a page to read it, `/docs`, which needs no other server.

use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};

/// What is not in the routes' own descriptions.
#[derive(OpenApi)]
#[openapi(
    info(title = "aichat", description = "Voice chat with characters, on your own machine."),
    security(("key" = []), ("cookie" = [])),
    modifiers(&Keys)
)]
pub(super) struct Description;

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
