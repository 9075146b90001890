//! A picture: dots in rows, read from a portable pixmap, written as PNG.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};

/// Red, green and blue.
type Dot = [u8; 3];

/// Dots in rows from the top.
#[derive(Debug, PartialEq, Eq)]
pub struct Picture {
    /// Dots in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    dots: Vec<Dot>,
}

impl Picture {
    /// Reads a binary portable pixmap with 8 bits per colour, as QEMU writes it.
    pub fn of_pixmap(bytes: &[u8]) -> Result<Self> {
        Self::parse(bytes).context("the picture of the screen is no portable pixmap")
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        // "P6", the width and the height, the greatest value, each ended by one newline or blank.
        let mut parts = bytes.splitn(5, u8::is_ascii_whitespace);
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<usize>().ok();
        let kind = parts.next()?;
        let (width, height) = (number(parts.next()?)?, number(parts.next()?)?);
        let most = number(parts.next()?)?;
        let (dots, _) = parts.next()?.as_chunks::<3>();
        let is_whole = kind == b"P6" && most == 255 && Some(dots.len()) == width.checked_mul(height);
        is_whole.then(|| Picture { width, height, dots: dots.to_vec() })
    }

    /// The dot at this place; black beyond the edge.
    pub fn dot(&self, x: usize, y: usize) -> Dot {
        let at = if x < self.width { self.dots.get(y * self.width + x) } else { None };
        at.copied().unwrap_or_default()
    }

    /// Writes it as a PNG file.
    pub fn save(&self, file: &Path) -> Result<()> {
        let name = || format!("cannot write {}", file.display());
        let width = u32::try_from(self.width).with_context(name)?;
        let height = u32::try_from(self.height).with_context(name)?;
        let out = BufWriter::new(File::create(file).with_context(name)?);
        let mut encoder = png::Encoder::new(out, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().with_context(name)?;
        writer.write_image_data(self.dots.as_flattened()).with_context(name)
    }
}

#[cfg(test)]
impl Picture {
    /// A picture with nothing on it.
    pub fn black(width: usize, height: usize) -> Self {
        Picture { width, height, dots: vec![[0; 3]; width * height] }
    }

    /// Sets a dot.
    pub fn set(&mut self, x: usize, y: usize, dot: Dot) {
        self.dots[y * self.width + x] = dot;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixmap_becomes_a_picture() {
        let picture = Picture::of_pixmap(b"P6\n2 1\n255\n\x01\x02\x03\x20\x0a\x00").unwrap();
        assert_eq!((picture.width, picture.height), (2, 1));
        assert_eq!(
            (picture.dot(0, 0), picture.dot(1, 0), picture.dot(2, 0)),
            ([1, 2, 3], [32, 10, 0], [0; 3])
        );
    }

    #[test]
    fn what_is_no_whole_pixmap_is_refused() {
        for bytes in
            [&b"P6\n2 1\n255\nabc"[..], b"P5\n1 1\n255\nabc", b"", b"P6\n1 1\n", b"P6\nx 1\n255\nabc"]
        {
            assert!(Picture::of_pixmap(bytes).is_err());
        }
        assert!(Picture::of_pixmap(b"P6\n18446744073709551615 2\n255\nabc").is_err());
    }
}
