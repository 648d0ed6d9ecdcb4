use axum::http::Method;
use image::{DynamicImage, ImageFormat, RgbImage, RgbaImage};
use serde_json::{Value, json};

use crate::api::fixture::{Server, server_on};
use crate::store::CharacterChange;
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(
    every_path_answers_its_success_its_absence_and_its_mistake,
    a_character_is_made_read_changed_and_deleted,
    what_was_changed_in_the_meantime_stays,
    lists_are_paged_sorted_and_filtered,
    a_character_gets_a_picture,
);

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: reqwest::header::HeaderMap,
    pub(super) bytes: bytes::Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn ask(server: &Server, method: Method, path: &str, body: Option<Value>, headers: &[(&str, &str)]) -> Answer {
    let mut request = server.asking(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    answer(request).await
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, bytes: response.bytes().await.unwrap() }
}

async fn send(server: &Server, id: &str, bytes: Vec<u8>, name: &str) -> Answer {
    answer(with_picture(server, id, bytes, name)).await
}

fn with_picture(server: &Server, id: &str, bytes: Vec<u8>, name: &str) -> reqwest::RequestBuilder {
    // Written by hand, since clients mend hostile names.
    let mut body = b"--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"".to_vec();
    body.extend(name.as_bytes());
    body.extend(b"\"\r\nContent-Type: image/svg+xml\r\n\r\n");
    body.extend(bytes);
    body.extend(b"\r\n--edge--\r\n");
    let request = server.asking(Method::POST, &format!("/api/characters/{id}/image")).body(body);
    request.header("content-type", "multipart/form-data; boundary=edge")
}

/// Method, path, body; status, code, field.
type Row = (Method, String, Value, (u16, &'static str, &'static str));

fn picture(format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let picture = RgbImage::from_fn(900, 300, |x, y| image::Rgb([x as u8, y as u8, 9]));
    DynamicImage::from(picture).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

async fn every_path_answers_its_success_its_absence_and_its_mistake(database: TestStore) {
    let server = server_on(database, |_| {}).await;
    let named = |name: &str| CharacterChange { name: Some(name.to_owned()), ..CharacterChange::default() };
    server.store.of("other").create_character(named("Hidden")).await.unwrap();
    let long = |length: usize| "x".repeat(length);
    let put = Method::PUT;
    let (mira, gone, hidden) = ("/api/characters/mira-001", "/api/characters/gone-001", "/api/characters/hidden-001");
    let wrong = |field: &'static str| (400, "bad_field", field);
    let found = (200, "", "");
    let absent = (404, "not_found", "");
    let rows: Vec<Row> = vec![
        (Method::GET, "/api/characters".into(), Value::Null, found),
        (Method::GET, "/api/characters?limit=0".into(), Value::Null, wrong("limit")),
        (Method::GET, "/api/characters?limit=many".into(), Value::Null, (400, "bad_query", "")),
        (Method::GET, "/api/characters?sort=colour".into(), Value::Null, wrong("sort")),
        (Method::GET, "/api/characters?cursor=!".into(), Value::Null, wrong("cursor")),
        (Method::GET, "/api/characters?is_active=perhaps".into(), Value::Null, (400, "bad_query", "")),
        (Method::GET, "/api/characters/active".into(), Value::Null, found),
        (Method::GET, "/api/characters/active?sort=-".into(), Value::Null, wrong("sort")),
        (Method::GET, "/api/characters/search?query=mira".into(), Value::Null, found),
        (Method::GET, "/api/characters/search?query=%20".into(), Value::Null, wrong("query")),
        (Method::GET, "/api/characters/search?query=%00".into(), Value::Null, wrong("query")),
        (Method::GET, "/api/characters/search".into(), Value::Null, wrong("query")),
        (Method::GET, mira.into(), Value::Null, found),
        (Method::GET, gone.into(), Value::Null, absent),
        (Method::GET, hidden.into(), Value::Null, absent),
        (Method::GET, "/api/characters/a%00b".into(), Value::Null, absent),
        (Method::GET, "/api/characters/..%2f..%2fetc%2fpasswd".into(), Value::Null, absent),
        (Method::POST, "/api/characters".into(), json!({"name": "Zoe"}), (201, "", "")),
        (Method::POST, "/api/characters".into(), json!({}), wrong("name")),
        (Method::POST, "/api/characters".into(), json!({"name": "  "}), wrong("name")),
        (Method::POST, "/api/characters".into(), json!({"name": "a\u{0}b"}), wrong("name")),
        (Method::POST, "/api/characters".into(), json!({"name": long(101)}), wrong("name")),
        (put.clone(), mira.into(), json!({"personality": "warm"}), found),
        (put.clone(), mira.into(), json!({}), found),
        (put.clone(), gone.into(), json!({"name": "X"}), absent),
        (put.clone(), hidden.into(), json!({"name": "X"}), absent),
        (put.clone(), mira.into(), json!({"name": 5}), wrong("name")),
        (put.clone(), mira.into(), json!({"description": long(2001)}), wrong("description")),
        (put.clone(), mira.into(), json!({"system_prompt": long(32_769)}), wrong("system_prompt")),
        (put.clone(), mira.into(), json!({"personality": long(32_769)}), wrong("personality")),
        (put.clone(), mira.into(), json!({"voice": ""}), wrong("voice")),
        (put.clone(), mira.into(), json!({"voice": long(201)}), wrong("voice")),
        (put.clone(), mira.into(), json!({"model": "a b"}), wrong("model")),
        (put.clone(), mira.into(), json!({"model": long(201)}), wrong("model")),
        (put.clone(), mira.into(), json!({"image_url": "javascript:alert(1)"}), wrong("image_url")),
        (put.clone(), mira.into(), json!({"image_url": "https:///x"}), wrong("image_url")),
        (put.clone(), mira.into(), json!({"talkativeness": 1.5}), wrong("talkativeness")),
        (put.clone(), mira.into(), json!({"languages": ["en", "English"]}), wrong("languages[1]")),
        (put.clone(), mira.into(), json!({"is_active": "yes"}), wrong("is_active")),
        (put.clone(), mira.into(), json!({"parameters": {"temperature": 9}}), wrong("parameters.temperature")),
        (put.clone(), mira.into(), json!({"parameters": {"stop": [""]}}), wrong("parameters.stop")),
        (put.clone(), mira.into(), json!({"parameters": {"max_tokens": 0}}), wrong("parameters.max_tokens")),
        (put.clone(), mira.into(), json!({"parameters": {"top_k": 2_000_000}}), wrong("parameters.top_k")),
        (put.clone(), mira.into(), json!({"parameters": {"colour": 1}}), wrong("parameters.colour")),
        (put.clone(), format!("{mira}/active"), json!({"is_active": true}), found),
        (put.clone(), format!("{mira}/active"), json!({}), wrong("is_active")),
        (put.clone(), format!("{gone}/active"), json!({"is_active": true}), absent),
        (put.clone(), format!("{hidden}/active"), json!({"is_active": true}), absent),
        (Method::GET, format!("{mira}/image"), Value::Null, absent),
        (Method::GET, format!("{mira}/image?size=huge"), Value::Null, (400, "bad_query", "")),
        (Method::GET, format!("{hidden}/image"), Value::Null, absent),
        (Method::POST, format!("{mira}/image"), json!({}), (400, "bad_form", "")),
        (Method::POST, format!("{gone}/image"), json!({}), absent),
        (Method::POST, format!("{hidden}/image"), json!({}), absent),
        (Method::DELETE, "/api/characters/zoe-001".into(), Value::Null, (204, "", "")),
        (Method::DELETE, "/api/characters/zoe-001".into(), Value::Null, absent),
        (Method::DELETE, hidden.into(), Value::Null, absent),
    ];
    for (method, path, body, (status, code, field)) in rows {
        let body = (!body.is_null()).then_some(body);
        let answer = ask(&server, method.clone(), &path, body.clone(), &[]).await;
        let told = answer.json();
        let what = format!("{method} {path} {:.80}: {told}", body.unwrap_or_default().to_string());
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(told["code"].as_str().unwrap_or_default(), code, "{what}");
        assert_eq!(told["errors"][0]["field"].as_str().unwrap_or_default(), field, "{what}");
    }
}

async fn a_character_is_made_read_changed_and_deleted(database: TestStore) {
    let server = server_on(database, |_| {}).await;
    let wanted = json!({
        "name": "Olivia Barns", "description": "An old friend.", "system_prompt": "You are Olivia.",
        "personality": "Dry.", "voice": "bf_emma", "image_url": "https://example.org/o.png", "model": "openai/gpt-4o",
        "parameters": {"temperature": 0.7, "top_p": 0.9, "top_k": 40, "max_tokens": 300, "seed": 7, "stop": ["END"],
                       "speed": 1.25},
        "talkativeness": 0.25, "languages": ["en"], "is_active": false,
    });
    let made = ask(&server, Method::POST, "/api/characters", Some(wanted.clone()), &[]).await;
    assert_eq!((made.status, made.header("location")), (201, "/api/characters/olivia-barns-001"));
    assert_eq!(made.header("etag"), "\"1\"");
    let mut told = made.json();
    for (name, value) in wanted.as_object().unwrap() {
        assert_eq!(&told[name], value, "{name}");
    }
    assert!(told["created_at"].as_str().unwrap().ends_with('Z'));
    let path = "/api/characters/olivia-barns-001";
    assert_eq!(ask(&server, Method::GET, path, None, &[]).await.json(), told);

    let change = json!({"voice": null, "model": null, "image_url": null, "parameters": null, "name": null});
    let changed = ask(&server, Method::PUT, path, Some(change), &[]).await;
    let after = changed.json();
    for name in ["voice", "model", "image_url"] {
        assert_eq!(after[name], Value::Null, "{name}");
        told[name] = Value::Null;
    }
    (told["parameters"], told["updated_at"]) = (json!({}), after["updated_at"].clone());
    assert_eq!((after, changed.header("etag")), (told, "\"2\""));
    let active = ask(&server, Method::PUT, &format!("{path}/active"), Some(json!({"is_active": true})), &[]).await;
    assert_eq!((active.status, &active.json()["is_active"]), (200, &json!(true)));
    assert_eq!(ask(&server, Method::DELETE, path, None, &[]).await.status, 204);
    assert_eq!(ask(&server, Method::GET, path, None, &[]).await.status, 404);
    let next = ask(&server, Method::POST, "/api/characters", Some(json!({"name": "Olivia Barns"})), &[]).await;
    assert_eq!(next.json()["id"], "olivia-barns-002", "an id is never used again");
}

async fn what_was_changed_in_the_meantime_stays(database: TestStore) {
    let server = server_on(database, |_| {}).await;
    let path = "/api/characters/mira-001";
    let rename = |name: &str| Some(json!({"name": name}));
    let first = ask(&server, Method::PUT, path, rename("Mirabelle"), &[("if-match", "\"1\"")]).await;
    assert_eq!((first.status, first.header("etag")), (200, "\"2\""));
    for (method, path, body) in [
        (Method::PUT, path.to_owned(), rename("Miriam")),
        (Method::PUT, format!("{path}/active"), Some(json!({"is_active": false}))),
        (Method::DELETE, path.to_owned(), None),
    ] {
        let refused = ask(&server, method, &path, body, &[("if-match", "\"1\"")]).await;
        assert_eq!((refused.status, &refused.json()["code"]), (412, &json!("changed")), "{path}");
    }
    let sent = with_picture(&server, "mira-001", picture(ImageFormat::Png), "a.png").header("if-match", "\"1\"");
    assert_eq!(answer(sent).await.status, 412);
    let now = ask(&server, Method::GET, path, None, &[]).await.json();
    assert_eq!((&now["name"], &now["image_url"]), (&json!("Mirabelle"), &Value::Null));
}

async fn lists_are_paged_sorted_and_filtered(database: TestStore) {
    let server = server_on(database, |_| {}).await;
    for (name, is_active) in [("Ada", true), ("Béa", false), ("Cleo", true), ("Dora", true)] {
        ask(&server, Method::POST, "/api/characters", Some(json!({"name": name, "is_active": is_active})), &[]).await;
    }
    let list = async |path: &str| {
        let told = ask(&server, Method::GET, path, None, &[]).await.json();
        let names: Vec<String> =
            told["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect();
        (names.join(" "), told["total"].clone(), told["next_cursor"].clone())
    };
    let (names, total, cursor) = list("/api/characters?sort=-name&limit=2").await;
    assert_eq!((names.as_str(), &total), ("Mira Dora", &json!(5)));
    let (names, _, cursor) =
        list(&format!("/api/characters?sort=-name&limit=2&cursor={}", cursor.as_str().unwrap())).await;
    assert_eq!(names, "Cleo Béa");
    let (names, _, cursor) =
        list(&format!("/api/characters?sort=-name&limit=2&cursor={}", cursor.as_str().unwrap())).await;
    assert_eq!((names.as_str(), cursor), ("Ada", Value::Null));
    assert_eq!(list("/api/characters").await.0, "Mira Ada Béa Cleo Dora");
    assert_eq!(list("/api/characters/active?sort=name").await.0, "Ada Cleo Dora Mira");
    assert_eq!(list("/api/characters?is_active=false").await.0, "Béa");
    assert_eq!(list("/api/characters/search?query=BEA").await.0, "Béa");
}

async fn a_character_gets_a_picture(database: TestStore) {
    let server = server_on(database, |_| {}).await;
    let path = "/api/characters/mira-001";
    let image = format!("{path}/image");
    let sent = send(&server, "mira-001", picture(ImageFormat::Png), "me.png").await;
    assert_eq!((sent.status, &sent.json()["image_url"]), (200, &json!(image)), "{:?}", sent.json());
    let full = ask(&server, Method::GET, &image, None, &[]).await;
    for (name, value) in
        [("content-type", "image/jpeg"), ("x-content-type-options", "nosniff"), ("cache-control", "private, no-cache")]
    {
        assert_eq!(full.header(name), value);
    }
    let read = image::load_from_memory(&full.bytes).unwrap();
    assert_eq!((read.width(), read.height()), (512, 171));
    let small = ask(&server, Method::GET, &format!("{image}?size=thumbnail"), None, &[]).await;
    assert_eq!(image::load_from_memory(&small.bytes).unwrap().width(), 96);
    let again = ask(&server, Method::GET, &image, None, &[("if-none-match", full.header("etag"))]).await;
    assert_eq!((again.status, again.bytes.len()), (304, 0));

    // Its own address changes nothing; a picture that is replaced is gone.
    let own = ask(&server, Method::PUT, path, Some(json!({"image_url": image})), &[]).await;
    assert_eq!((own.status, &own.json()["image_url"]), (200, &json!(image)));
    let glass = DynamicImage::from(RgbaImage::from_pixel(8, 8, image::Rgba([1, 2, 3, 4])));
    let mut bytes = std::io::Cursor::new(Vec::new());
    glass.write_to(&mut bytes, ImageFormat::Png).unwrap();
    assert_eq!(send(&server, "mira-001", bytes.into_inner(), "glass").await.status, 200);
    let second = ask(&server, Method::GET, &image, None, &[("if-none-match", full.header("etag"))]).await;
    assert_eq!((second.status, second.header("content-type")), (200, "image/webp"));
    assert_eq!(files(&server).len(), 2, "a picture and its thumbnail");
    for (bytes, status, code) in [
        (b"<svg/>".repeat(9), 415, "unsupported_image"),
        (picture(ImageFormat::Png)[..500].to_vec(), 400, "bad_image"),
        (vec![0; 21 << 20], 413, "too_large"),
    ] {
        let refused = send(&server, "mira-001", bytes, "x").await;
        assert_eq!((refused.status, &refused.json()["code"]), (status, &json!(code)));
        assert_eq!(refused.json()["errors"][0]["field"], "file");
    }
    let elsewhere = Some(json!({"image_url": "https://example.org/m.png"}));
    ask(&server, Method::PUT, path, elsewhere, &[]).await;
    assert_eq!(ask(&server, Method::GET, &image, None, &[]).await.status, 404);
    assert!(files(&server).is_empty());
    send(&server, "mira-001", picture(ImageFormat::WebP), "x").await;
    assert_eq!(ask(&server, Method::DELETE, path, None, &[]).await.status, 204);
    assert!(files(&server).is_empty());
}

fn files(server: &Server) -> Vec<String> {
    let entries = std::fs::read_dir(server.data_dir().join("images")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Everything below a folder.
fn tree(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut paths = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            paths.extend(tree(&path));
        }
        paths.push(path);
    }
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_write_nothing_outside_the_data_folder() {
    let outside = tempfile::tempdir().unwrap();
    let data = outside.path().join("a/b/data");
    let server = server_on(crate::store::fixture::sqlite().await, |state| state.data_dir.clone_from(&data)).await;
    let bytes = picture(ImageFormat::Jpeg);
    let mut names: Vec<String> = [
        "../x",
        "../../x",
        "../../../../../../tmp/aichat-hostile",
        "/tmp/aichat-hostile",
        "..\\..\\x",
        "C:\\x",
        "\\\\host\\x",
        ".",
        "..",
        "/",
        "",
        " ",
        "-rf",
        "--help",
        "~/.ssh/authorized_keys",
        "$(touch x)",
        "`touch x`",
        "x;touch y",
        "x|y",
        "x\0.png",
        "x%00.png",
        "%2e%2e%2fx",
        "..%c0%afx",
        "....//x",
        "file:///etc/passwd",
        "http://x/y.png",
        "x.php",
        "x.svg",
        ".htaccess",
        "CON",
        "NUL.png",
        "x.png::$DATA",
        "x\u{202e}gnp.exe",
        "a/b/c/d",
        "images/../../x",
        "*",
        "?",
        "x.jpg/../../y",
        "data/aichat.db",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("a".repeat(2000));
    assert_eq!(names.len(), 40);
    for name in &names {
        let sent = send(&server, "mira-001", bytes.clone(), name).await;
        assert!(sent.status == 200 || sent.status == 400, "{name}: {}", sent.status);
    }
    for id in ["..%2f..%2fx", "%2e%2e", "..%5cx", "%2ftmp%2fx"] {
        assert_eq!(send(&server, id, bytes.clone(), "x").await.status, 404, "{id}");
    }
    let images = data.join("images");
    let strays: Vec<_> =
        tree(outside.path()).into_iter().filter(|path| path.is_file() && !path.starts_with(&images)).collect();
    assert!(strays.is_empty(), "{strays:?}");
    let kept = tree(&images);
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(!std::path::Path::new("/tmp/aichat-hostile").exists());
}
