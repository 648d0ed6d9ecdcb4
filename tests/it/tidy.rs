//! The house rules that a compiler does not know: who may import whom, what is banned where, how long a file may be.
//!
//! The table is DESIGN's layer table. Each failure names the file and the reason of the rule.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One row of the layer table. `outside` lists crates beyond [`EVERYWHERE`].
struct Room {
    module: &'static str,
    ours: &'static [&'static str],
    outside: &'static [&'static str],
}

/// Allowed in every module.
const EVERYWHERE: &[&str] = &["thiserror", "tracing", "bytes", "serde", "std", "core", "alloc"];

const ROOMS: &[Room] = &[
    Room {
        module: "audio",
        ours: &[],
        outside: &[
            "symphonia",
            "symphonia_adapter_libopus",
            "rubato",
            "audioadapter_buffers",
            "realfft",
            "hound",
            "opus",
            "ogg",
            "flacenc",
            "mp3lame_encoder",
            "fdk_aac",
        ],
    },
    Room { module: "text", ours: &[], outside: &["unicode_normalization", "unicode_segmentation", "flate2"] },
    Room {
        module: "provider",
        ours: &["audio", "text"],
        outside: &["futures", "serde_json", "tokio", "tokio_stream", "metrics"],
    },
    Room {
        module: "nn",
        ours: &["audio"],
        outside: &[
            "candle_core",
            "candle_nn",
            "candle_transformers",
            "safetensors",
            "half",
            "rayon",
            "gemm",
            "rand",
            "realfft",
            "memmap2",
            "serde_json",
            "zip",
        ],
    },
    Room {
        module: "engine",
        ours: &["nn", "provider", "audio", "text"],
        outside: &[
            "candle_core",
            "candle_nn",
            "candle_transformers",
            "safetensors",
            "tokenizers",
            "minijinja",
            "minijinja_contrib",
            "llguidance",
            "loqui_g2p",
            "rand",
            "rayon",
            "futures",
            "libc",
            "metrics",
            "serde_json",
            "tokio",
            "tokio_stream",
            "memmap2",
            "time",
        ],
    },
    Room {
        module: "catalog",
        ours: &[],
        outside: &[
            "hf_hub",
            "reqwest",
            "sha2",
            "zip",
            "toml",
            "tokio",
            "futures",
            "serde_json",
            "safetensors",
            "tempfile",
            "time",
        ],
    },
    Room {
        module: "remote",
        ours: &["provider", "audio"],
        outside: &[
            "reqwest",
            "tokio",
            "tokio_stream",
            "futures",
            "eventsource_stream",
            "serde_json",
            "secrecy",
            "base64",
            "time",
        ],
    },
    Room {
        module: "session",
        ours: &["provider", "audio", "text"],
        outside: &["tokio", "tokio_stream", "futures", "rand", "metrics", "uuid", "serde_json"],
    },
    Room {
        module: "store",
        ours: &["session", "provider", "audio"],
        outside: &["sqlx", "tokio", "futures", "serde_json", "sha2", "rand", "uuid", "time", "unicode_normalization"],
    },
    Room {
        module: "api",
        ours: &["session", "store", "catalog", "provider", "audio", "text"],
        outside: &[
            "axum",
            "tower",
            "tower_http",
            "hyper",
            "hyper_util",
            "tokio",
            "tokio_stream",
            "tokio_util",
            "futures",
            "serde_json",
            "serde_path_to_error",
            "base64",
            "tempfile",
            "sha2",
            "utoipa",
            "utoipa_axum",
            "utoipa_swagger_ui",
            "governor",
            "tokio_rustls",
            "rcgen",
            "image",
            "cookie",
            "zip",
            "metrics",
            "metrics_exporter_prometheus",
            "uuid",
            "time",
        ],
    },
];

/// (crate, modules that may name it, why).
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("candle_core", &["nn", "engine"], "tensors stay behind the seam"),
    ("candle_nn", &["nn", "engine"], "tensors stay behind the seam"),
    ("axum", &["api", "app"], "only the doors know HTTP"),
    ("sqlx", &["store", "app"], "only the store knows SQL"),
    ("reqwest", &["remote", "catalog"], "only remote providers and the model fetcher go out"),
    ("clap", &["cli", "config", "telemetry", "main"], "flags are read once"),
];

/// Words that may not stand outside tests, with the reason.
const BANNED: &[(&str, &[&str], &str)] = &[
    ("std::env", &["config", "main"], "config is the only reader of the environment"),
    (".unwrap()", &[], "an error needs a message"),
    (".expect(", &[], "an error needs a type"),
    ("todo!(", &[], "what lands is finished"),
    ("unimplemented!(", &[], "what lands is finished"),
];

/// Compiled for tests only.
const TEST_FILES: &[&str] = &["tests.rs", "testing.rs", "fake.rs", "fixture.rs"];

const ORDINARY_FILE: usize = 400;
const MODEL_FILE: usize = 800;
const FOLDER: usize = 12;

#[test]
fn modules_import_only_what_their_layer_allows() {
    let mut broken = Vec::new();
    for file in sources() {
        let Some(room) = ROOMS.iter().find(|room| room.module == file.module) else { continue };
        for path in &file.paths {
            let (first, second) = path;
            if first == "crate" {
                if second != room.module && !room.ours.contains(&second.as_str()) {
                    broken.push(format!("{}: {} may not import crate::{second}", file.shown(), room.module));
                }
            } else if dependencies().contains(first)
                && !EVERYWHERE.contains(&first.as_str())
                && !room.outside.contains(&first.as_str())
            {
                broken.push(format!("{}: {} may not use the crate {first}", file.shown(), room.module));
            }
        }
    }
    assert!(broken.is_empty(), "the layer table of docs/ARCHITECTURE.md is broken:\n{}", broken.join("\n"));
}

#[test]
fn reserved_crates_stay_in_their_modules() {
    let mut broken = Vec::new();
    for file in sources() {
        for (name, modules, reason) in RESERVED {
            if !modules.contains(&file.module.as_str()) && file.paths.iter().any(|(first, _)| first == name) {
                broken.push(format!("{}: {name} is only for {modules:?}: {reason}", file.shown()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn banned_words_stay_out() {
    let mut broken = Vec::new();
    for file in sources() {
        for (word, modules, reason) in BANNED {
            if !modules.contains(&file.module.as_str()) && file.code.iter().any(|line| line.contains(word)) {
                broken.push(format!("{}: {word}: {reason}", file.shown()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn files_and_folders_keep_their_size() {
    let mut broken = Vec::new();
    let mut folders: std::collections::BTreeMap<PathBuf, usize> = std::collections::BTreeMap::new();
    for file in sources() {
        let limit = if file.module == "nn" { MODEL_FILE } else { ORDINARY_FILE };
        let lines = file.code.iter().filter(|line| !line.trim().is_empty()).count();
        if lines > limit {
            broken.push(format!("{}: {lines} lines of code, at most {limit}: cut a seam", file.shown()));
        }
        if let Some(folder) = file.path.parent() {
            *folders.entry(folder.to_path_buf()).or_default() += 1;
        }
    }
    for (folder, files) in folders {
        // The crate's root holds the modules themselves.
        if files > FOLDER && !folder.ends_with("src") {
            broken.push(format!("{}: {files} files, at most {FOLDER}", folder.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_scanner_sees_what_it_should() {
    let code =
        strip("use crate::audio::Mic; // crate::api\nlet a = \"crate::store\"; axum::Router::new(); a::candle_core::b");
    let paths = paths(&code);
    assert!(paths.contains(&("crate".into(), "audio".into())));
    assert!(paths.contains(&("axum".into(), "Router".into())));
    assert!(!paths.iter().any(|(first, second)| first == "candle_core" || second == "api" || second == "store"));
}

struct Source {
    path: PathBuf,
    module: String,
    /// Without comments and strings.
    code: Vec<String>,
    /// First and second segment of every path in it.
    paths: BTreeSet<(String, String)>,
}

impl Source {
    fn shown(&self) -> String {
        self.path.strip_prefix(root()).unwrap_or(&self.path).display().to_string()
    }
}

/// Where the test runs: a cache of builds may know another checkout.
fn root() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"))
}

/// Every source file but tests.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join("src"), &mut found);
    assert!(found.len() > 20, "the scan found {} files only", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("tests") {
                collect(&path, found);
            }
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_test = TEST_FILES.contains(&name.as_str()) || name.ends_with("_tests.rs");
        if path.extension().is_none_or(|extension| extension != "rs") || is_test {
            continue;
        }
        let inside = path.strip_prefix(root().join("src")).unwrap();
        let module =
            inside.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned();
        let code = strip(&fs::read_to_string(&path).unwrap());
        found.push(Source { paths: paths(&code), code: code.lines().map(str::to_owned).collect(), path, module });
    }
}

/// Blanks comments and string literals, so that words in them do not count.
fn strip(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => {
                for c in chars.by_ref() {
                    if c == '\n' {
                        out.push('\n');
                        break;
                    }
                }
            }
            '"' => {
                out.push_str("\"\"");
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        '\n' => out.push('\n'),
                        _ => {}
                    }
                }
            }
            // A quoted quote, so that it does not open a string.
            '\'' if chars.peek() == Some(&'"') => {
                chars.next();
                chars.next();
                out.push_str("' '");
            }
            _ => out.push(c),
        }
    }
    out
}

fn paths(code: &str) -> BTreeSet<(String, String)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("::") {
        let before = &code[..at];
        let first: String =
            before.chars().rev().take_while(|c| is_word(*c)).collect::<Vec<_>>().into_iter().rev().collect();
        if first.is_empty() || before[..before.len() - first.len()].ends_with("::") {
            continue;
        }
        let second: String = code[at + 2..].chars().take_while(|c| is_word(*c)).collect();
        found.insert((first, second));
    }
    found
}

/// The crates that Cargo.toml names, as Rust spells them.
fn dependencies() -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && let Some((name, _)) = line.split_once('=') {
            names.insert(name.trim().trim_end_matches(".workspace").replace('-', "_"));
        }
    }
    names
}
