use std::io::Write;
use std::time::{Duration, Instant};

use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage, Rgba, RgbaImage};

use super::*;

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

fn made(bytes: &[u8]) -> Result<Picture, PictureError> {
    read(file(bytes))
}

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn colourful(width: u32, height: u32) -> DynamicImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, (x / 3 + y) as u8])).into()
}

/// A chunk of a PNG.
fn chunk(kind: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(&kind);
    crc.update(data);
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&length[..], &kind, data, &crc.sum().to_be_bytes()].concat()
}

/// A PNG whose header claims a size; what follows it is `rest`.
fn claimed(width: u32, height: u32, bits: u8, colour: u8, rest: &[u8]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[bits, colour, 0, 0, 0]].concat();
    [b"\x89PNG\r\n\x1a\n", chunk(*b"IHDR", &header).as_slice(), rest, &chunk(*b"IEND", &[])].concat()
}

/// So many zeros, compressed.
fn zeros(count: usize) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let block = vec![0; 1 << 20];
    for _ in 0..count >> 20 {
        encoder.write_all(&block).unwrap();
    }
    encoder.write_all(&block[..count % (1 << 20)]).unwrap();
    encoder.finish().unwrap()
}

/// The most memory that this process had, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

#[test]
fn pictures_become_small_ones_of_their_shape() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        let picture = made(&encoded(&colourful(2000, 1000), format)).unwrap();
        assert_eq!(picture.kind, Kind::Jpeg);
        let size = |bytes: &[u8]| {
            let read = image::load_from_memory_with_format(bytes, ImageFormat::Jpeg).unwrap();
            (read.width(), read.height())
        };
        assert_eq!((size(&picture.full), size(&picture.thumbnail)), ((512, 256), (96, 48)), "{format:?}");
    }
    // A small one is not blown up; one that can be seen through stays so, to the pixel.
    let glass: DynamicImage = RgbaImage::from_fn(60, 40, |x, y| Rgba([9, x as u8, y as u8, (x * 4) as u8])).into();
    let picture = made(&encoded(&glass, ImageFormat::Png)).unwrap();
    assert_eq!(picture.kind, Kind::WebP);
    let full = image::load_from_memory_with_format(&picture.full, ImageFormat::WebP).unwrap();
    assert_eq!(full.to_rgba8(), glass.to_rgba8());
    // One that only could be is a JPEG.
    let opaque = DynamicImage::from(colourful(9, 9).to_rgba8());
    assert_eq!(made(&encoded(&opaque, ImageFormat::Png)).unwrap().kind, Kind::Jpeg);
}

#[test]
fn the_orientation_is_applied_and_nothing_else_is_kept() {
    // Left red, right blue, and a note that it is to be turned by a quarter.
    let sides = RgbImage::from_fn(64, 32, |x, _| if x < 32 { Rgb([250, 0, 0]) } else { Rgb([0, 0, 250]) });
    let exif =
        [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".as_slice(), b"SECRET-PLACE"].concat();
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
    encoder.set_exif_metadata(exif).unwrap();
    encoder.write_image(sides.as_raw(), 64, 32, ExtendedColorType::Rgb8).unwrap();
    let holds = |bytes: &[u8]| bytes.windows(6).any(|part| part == b"SECRET");
    assert!(holds(&bytes));
    let picture = made(&bytes).unwrap();
    assert!(!holds(&picture.full) && !holds(&picture.thumbnail));
    let full = image::load_from_memory(&picture.full).unwrap().to_rgb8();
    assert_eq!((full.width(), full.height()), (32, 64));
    let (top, bottom) = (full.get_pixel(16, 8).0, full.get_pixel(16, 56).0);
    assert!(top[0] > 200 && bottom[2] > 200, "{top:?} {bottom:?}");
}

#[test]
fn what_pretends_is_refused_before_it_is_decoded() {
    let started = Instant::now();
    let before = peak_memory();
    let pixel = chunk(*b"IDAT", &zeros(4));
    let long = chunk(*b"IDAT", &zeros(150_000_000));
    let profile = chunk(*b"iCCP", &[b"x\0\0".as_slice(), &zeros(300_000_000)].concat());
    for (what, bytes) in [
        ("a pixel that claims 65535", claimed(65_535, 65_535, 8, 2, &pixel)),
        ("two thousand million pixels", claimed(2_147_483_647, 1, 8, 0, &pixel)),
        ("too many pixels", claimed(8192, 8192, 1, 0, &pixel)),
        ("64 bits a pixel", claimed(6000, 6000, 16, 6, &long)),
    ] {
        assert!(matches!(made(&bytes), Err(PictureError::TooLarge(_))), "{what}");
    }
    // Texts and profiles that unfold are not unfolded, or not far.
    let text = chunk(*b"zTXt", &[b"bomb\0\0".as_slice(), &zeros(1_000_000_000)].concat());
    let bomb = claimed(1, 1, 8, 0, &[text.clone(), text, chunk(*b"IDAT", &zeros(2))].concat());
    assert!(made(&bomb).is_ok());
    let _ = made(&claimed(1, 1, 8, 0, &[profile, chunk(*b"IDAT", &zeros(2))].concat()));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let more = peak_memory().saturating_sub(before);
    assert!(more < 256 << 20, "{} MB more", more >> 20);
}

#[test]
fn a_progressive_jpeg_is_weighed_as_what_it_takes() {
    let plain = encoded(&colourful(32, 32), ImageFormat::Jpeg);
    assert!(!is_progressive(&mut file(&plain)).unwrap());
    let at = plain.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap();
    let mut progressive = plain.clone();
    progressive[at + 1] = 0xC2;
    assert!(is_progressive(&mut file(&progressive)).unwrap());
    // The size stands after the marker, the length and the bits.
    let large = |mut bytes: Vec<u8>| {
        bytes[at + 5..at + 9].copy_from_slice(&[0x13, 0x88, 0x13, 0x88]);
        bytes
    };
    assert!(matches!(made(&large(progressive)), Err(PictureError::TooLarge(_))));
    assert!(matches!(made(&large(plain)), Ok(_) | Err(PictureError::Damaged(_))));
}

/// A WebP that moves, of `count` red frames.
fn moving(width: u32, height: u32, count: usize) -> Vec<u8> {
    let still = encoded(&RgbaImage::from_pixel(width, height, Rgba([250, 0, 0, 255])).into(), ImageFormat::WebP);
    let part = |kind: &[u8], data: &[u8]| {
        let length = u32::try_from(data.len()).unwrap().to_le_bytes();
        let padding = if data.len().is_multiple_of(2) { &[][..] } else { &[0] };
        [kind, &length, data, padding].concat()
    };
    let side = |length: u32| (length - 1).to_le_bytes()[..3].to_vec();
    let size = [side(width), side(height)].concat();
    // What follows `RIFF....WEBP` in the still one is its picture.
    let frame = part(b"ANMF", &[&[0; 6], size.as_slice(), &[100, 0, 0, 0], &still[12..]].concat());
    let head = part(b"VP8X", &[&[0b10, 0, 0, 0], size.as_slice()].concat());
    let parts = [b"WEBP".to_vec(), head, part(b"ANIM", &[0; 6]), frame.repeat(count)].concat();
    part(b"RIFF", &parts)
}

#[test]
fn of_a_picture_that_moves_the_first_frame_counts() {
    let picture = made(&moving(40, 30, 200)).unwrap();
    let full = image::load_from_memory(&picture.full).unwrap().to_rgb8();
    assert_eq!((full.width(), full.height()), (40, 30));
    assert!(full.get_pixel(20, 15).0[0] > 200);
}

#[test]
fn what_is_damaged_or_of_another_kind_is_refused() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
        let whole = encoded(&colourful(200, 100), format);
        for keep in [12, 13, 30, whole.len() / 2] {
            let outcome = made(&whole[..keep]).map(|_| ());
            // Half a JPEG is a picture whose lower half is grey: its decoder says so, as browsers do.
            let is_half = format == ImageFormat::Jpeg && keep == whole.len() / 2;
            assert!(is_half || matches!(outcome, Err(PictureError::Damaged(_))), "{format:?} {keep} {outcome:?}");
        }
    }
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>";
    let gif = b"GIF89a/*\x01\0\x01\0*/=1;alert(1)";
    let mut zip = b"PK\x03\x04".to_vec();
    zip.extend(encoded(&colourful(9, 9), ImageFormat::Png));
    for bytes in [b"".as_slice(), b"\x89PNG", svg, gif, &zip, b"RIFF\0\0\0\0WAVEfmt ", &[0; 4096]] {
        assert_eq!(made(bytes).map(|_| ()), Err(PictureError::OtherType));
    }
}

#[test]
fn what_hides_behind_or_in_a_picture_is_left_out() {
    let mut both = encoded(&colourful(64, 64), ImageFormat::Png);
    both.extend(b"PK\x03\x04<script>alert(1)</script>");
    let picture = made(&both).unwrap();
    assert!(!picture.full.windows(8).any(|part| part == b"<script>"));
    let note = chunk(*b"tEXt", b"Comment\0<script>alert(1)</script>");
    let inside = claimed(1, 1, 8, 0, &[note, chunk(*b"IDAT", &zeros(2))].concat());
    assert!(!made(&inside).unwrap().full.windows(8).any(|part| part == b"<script>"));
}

#[test]
fn the_largest_that_is_read_takes_less_than_a_quarter_of_a_gigabyte() {
    let rows = zeros((6000 * 3 + 1) * 6000);
    let bytes = claimed(6000, 6000, 8, 2, &chunk(*b"IDAT", &rows));
    let before = peak_memory();
    assert_eq!(made(&bytes).unwrap().kind, Kind::Jpeg);
    let more = peak_memory().saturating_sub(before);
    assert!(more < 256 << 20, "{} MB more", more >> 20);
}
