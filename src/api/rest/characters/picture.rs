//! A picture that somebody sent, made into two small ones of our own: nothing of the file's bytes is kept.
//!
//! What it claims to be is read first, and what it would take to decode is worked out before anything is. One picture is
//! decoded at a time. Of several frames the first counts; the orientation that a camera noted is applied, and everything
//! else that the file says about itself is left out.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};

use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::{WebPDecoder, WebPEncoder};
use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use tokio::sync::Semaphore;

/// A side of the picture that is kept, and of its thumbnail.
const SIDE: u32 = 512;
const THUMBNAIL_SIDE: u32 = 96;
/// A side of a picture that is read.
const LONGEST_SIDE: u32 = 8192;
const MOST_PIXELS: u64 = 40_000_000;
/// What decoding may take, by our own sum and by the decoders'.
const MOST_MEMORY: u64 = 200 * 1024 * 1024;
const JPEG_QUALITY: u8 = 88;

/// So that the memory is that of one.
static DECODING: Semaphore = Semaphore::const_new(1);

/// A picture as it is kept.
pub(super) struct Picture {
    pub(super) kind: Kind,
    pub(super) full: Vec<u8>,
    pub(super) thumbnail: Vec<u8>,
}

/// How it is written: pictures that one can see through cannot be JPEGs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Jpeg,
    WebP,
}

impl Kind {
    pub(super) const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
        }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }

    pub(super) fn of_extension(extension: &str) -> Option<Self> {
        [Self::Jpeg, Self::WebP].into_iter().find(|kind| kind.extension() == extension)
    }
}

/// Why a file becomes no picture.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum PictureError {
    #[error("it is none of PNG, JPEG and WebP")]
    OtherType,
    #[error("{0}")]
    TooLarge(String),
    #[error("it cannot be read as the {0} that it begins as; it may be damaged")]
    Damaged(&'static str),
}

/// Reads a file and makes its pictures, apart from whoever waits.
pub(super) async fn make(file: File) -> Result<Picture, PictureError> {
    // The semaphore is never closed.
    let _alone = DECODING.acquire().await;
    let making = tokio::task::spawn_blocking(move || read(file));
    // A decoder that panics has met a file that it does not understand; tokio catches it.
    making.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a picture's decoder failed");
        Err(PictureError::Damaged("picture"))
    })
}

fn read(mut file: File) -> Result<Picture, PictureError> {
    let (format, name) = format_of(&mut file)?;
    let damaged = |error: ImageError| match error {
        ImageError::Limits(_) => PictureError::TooLarge(format!(
            "decoding it would take more than {} MB; send a smaller one",
            MOST_MEMORY / 1024 / 1024
        )),
        _ => PictureError::Damaged(name),
    };
    let cost = weigh(&mut file, format).map_err(damaged)?;
    let mut reader = ImageReader::with_format(BufReader::new(file), format);
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    check(decoder.dimensions(), decoder.total_bytes(), cost)?;
    let orientation = decoder.orientation().map_err(damaged)?;
    let mut whole = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    if whole.width().max(whole.height()) > 2 * SIDE {
        // Averages without a copy of what is large.
        whole = whole.thumbnail(2 * SIDE, 2 * SIDE);
    }
    whole.apply_orientation(orientation);
    let full = within(&whole, SIDE);
    let thumbnail = within(&full, THUMBNAIL_SIDE);
    let kind = if is_opaque(&full) { Kind::Jpeg } else { Kind::WebP };
    let written = |picture: &DynamicImage| write(picture, kind).map_err(damaged);
    Ok(Picture { kind, full: written(&full)?, thumbnail: written(&thumbnail)? })
}

/// By the first bytes; what a client calls it says nothing.
fn format_of(file: &mut File) -> Result<(ImageFormat, &'static str), PictureError> {
    let mut head = [0; 12];
    file.read_exact(&mut head).map_err(|_| PictureError::OtherType)?;
    file.seek(SeekFrom::Start(0)).map_err(|_| PictureError::OtherType)?;
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        Ok((ImageFormat::Png, "PNG"))
    } else if head.starts_with(&[0xFF, 0xD8, 0xFF]) {
        Ok((ImageFormat::Jpeg, "JPEG"))
    } else if head.starts_with(b"RIFF") && head.ends_with(b"WEBP") {
        Ok((ImageFormat::WebP, "WebP"))
    } else {
        Err(PictureError::OtherType)
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    limits.max_alloc = Some(MOST_MEMORY);
    limits
}

/// Bytes a pixel that its decoder takes beside what it answers.
fn weigh(file: &mut File, format: ImageFormat) -> Result<u64, ImageError> {
    let cost = match format {
        // A canvas and a frame where it moves; else colours and transparency, which are joined.
        ImageFormat::WebP => {
            let decoder = WebPDecoder::new(BufReader::new(&mut *file))?;
            if decoder.has_animation() { 8 } else { 4 }
        }
        // A progressive one keeps the coefficients of all three colours, 16 bits each, and once more while it scales them.
        ImageFormat::Jpeg if is_progressive(file)? => 12,
        ImageFormat::Jpeg => 3,
        _ => 0,
    };
    file.seek(SeekFrom::Start(0))?;
    Ok(cost)
}

/// Whether a JPEG's frame header says so. It stands before the first scan.
fn is_progressive(file: &mut File) -> std::io::Result<bool> {
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(2))?;
    let mut byte = [0; 1];
    loop {
        if reader.read(&mut byte)? == 0 {
            return Ok(false);
        }
        if byte[0] != 0xFF {
            continue;
        }
        while byte[0] == 0xFF {
            reader.read_exact(&mut byte)?;
        }
        match byte[0] {
            0xC2 | 0xC6 | 0xCA | 0xCE => return Ok(true),
            // The first scan, or the end.
            0xDA | 0xD9 => return Ok(false),
            // Markers without a length.
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            _ => {
                let mut length = [0; 2];
                reader.read_exact(&mut length)?;
                let rest = i64::from(u16::from_be_bytes(length)) - 2;
                reader.seek_relative(rest.max(0))?;
            }
        }
    }
}

/// `bytes` is what the decoder answers, `cost` what it takes beside it for each pixel.
fn check((width, height): (u32, u32), bytes: u64, cost: u64) -> Result<(), PictureError> {
    let pixels = u64::from(width) * u64::from(height);
    if width > LONGEST_SIDE || height > LONGEST_SIDE || pixels > MOST_PIXELS {
        return Err(PictureError::TooLarge(format!(
            "it has {width} x {height} pixels; at most {LONGEST_SIDE} a side and {} million are read",
            MOST_PIXELS / 1_000_000
        )));
    }
    let memory = bytes.saturating_add(pixels * cost);
    if memory > MOST_MEMORY {
        return Err(PictureError::TooLarge(format!(
            "decoding it would take {} MB; at most {} are spent on it, so send a smaller one",
            memory / 1024 / 1024,
            MOST_MEMORY / 1024 / 1024
        )));
    }
    Ok(())
}

/// The same picture, no side longer than `side`.
fn within(picture: &DynamicImage, side: u32) -> DynamicImage {
    if picture.width().max(picture.height()) <= side {
        return picture.clone();
    }
    picture.resize(side, side, FilterType::Lanczos3)
}

fn is_opaque(picture: &DynamicImage) -> bool {
    !picture.color().has_alpha() || picture.to_rgba8().pixels().all(|pixel| pixel.0[3] == u8::MAX)
}

fn write(picture: &DynamicImage, kind: Kind) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Cursor::new(Vec::new());
    match kind {
        Kind::Jpeg => picture.to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))?,
        Kind::WebP => picture.to_rgba8().write_with_encoder(WebPEncoder::new_lossless(&mut bytes))?,
    }
    Ok(bytes.into_inner())
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
