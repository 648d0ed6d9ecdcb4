//! The pictures' files: `DATA_DIR/images/ID.jpg` and `ID.thumbnail.jpg`, under names that only the server makes.
//!
//! A file is written under another name, synced and renamed, so that under its name it is whole.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::picture::{Kind, Picture};

/// Which of a picture's two files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Size {
    /// At most 512 pixels a side.
    #[default]
    Full,
    /// At most 96 pixels a side.
    Thumbnail,
}

/// What a file is called while it is written.
const UNFINISHED: &str = "part";

/// Keeps a picture, and answers its name.
pub(super) async fn keep(data_dir: &Path, picture: Picture) -> std::io::Result<String> {
    let folder = folder(data_dir);
    let writing = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&folder)?;
        let name = format!("{}.{}", Uuid::new_v4(), picture.kind.extension());
        write(&folder, &file_name(&name, Size::Thumbnail), &picture.thumbnail)?;
        write(&folder, &name, &picture.full)?;
        // The folder's own entries last, too.
        File::open(&folder)?.sync_all()?;
        Ok(name)
    });
    writing.await.map_err(std::io::Error::other)?
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let unfinished = folder.join(format!("{name}.{UNFINISHED}"));
    let written = File::create_new(&unfinished).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let kept = written.and_then(|()| std::fs::rename(&unfinished, folder.join(name)));
    if kept.is_err() {
        // It is gone already, or the disk is worse than full.
        let _ = std::fs::remove_file(&unfinished);
    }
    kept
}

/// Removes a picture that nobody has any more.
pub(super) async fn remove(data_dir: &Path, name: Option<&str>) {
    let Some(name) = name.filter(|name| kind(name).is_some()) else { return };
    for size in [Size::Full, Size::Thumbnail] {
        let path = folder(data_dir).join(file_name(name, size));
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, file = %path.display(), "a picture was not removed");
            }
            _ => {}
        }
    }
}

/// A picture's bytes.
pub(super) async fn read(data_dir: &Path, name: &str, size: Size) -> std::io::Result<Vec<u8>> {
    tokio::fs::read(folder(data_dir).join(file_name(name, size))).await
}

/// What a file of ours holds. None: it is none of ours, and no path is made of its name.
pub(super) fn kind(name: &str) -> Option<Kind> {
    let (id, extension) = name.split_once('.')?;
    Uuid::try_parse(id).ok().and_then(|_| Kind::of_extension(extension))
}

fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("images")
}

fn file_name(name: &str, size: Size) -> String {
    match (size, name.split_once('.')) {
        (Size::Thumbnail, Some((id, extension))) => format!("{id}.thumbnail.{extension}"),
        _ => name.to_owned(),
    }
}
