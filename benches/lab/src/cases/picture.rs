//! Pictures: what a small program paints is in the screenshot, pixel by pixel.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{Bench, Case};
use crate::payload::painter::Mode;

pub const CASES: &[Case] = &[
    Case { name: "picture: text mode 3", seconds: 60, kvm: true, run: |bench| paint(bench, Mode::Text) },
    Case { name: "picture: mode 12h", seconds: 60, kvm: true, run: |bench| paint(bench, Mode::Planes) },
    Case { name: "picture: mode 13h", seconds: 60, kvm: true, run: |bench| paint(bench, Mode::Chained) },
    Case { name: "picture: VBE 640x480x32", seconds: 90, kvm: true, run: |bench| paint(bench, Mode::Linear) },
];

fn paint(bench: &Bench, mode: Mode) -> Result<()> {
    bench.write("painter.img", &mode.disk())?;
    bench.machine(&["--disk", "painter.img"])?.wait()?.expect(0)?;
    compare(&Picture::read(&bench.file("screen.png"))?, mode)
}

/// A screenshot.
struct Picture {
    width: u32,
    height: u32,
    /// Bytes of a pixel: 3, or 4 with an opacity.
    depth: usize,
    pixels: Vec<u8>,
}

impl Picture {
    fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).context("there is no screenshot")?;
        let mut reader = png::Decoder::new(BufReader::new(file)).read_info().context("no PNG")?;
        let mut pixels = vec![0; reader.output_buffer_size().context("a picture too large")?];
        let info = reader.next_frame(&mut pixels).context("a broken PNG")?;
        let depth = match (info.color_type, info.bit_depth) {
            (png::ColorType::Rgb, png::BitDepth::Eight) => 3,
            (png::ColorType::Rgba, png::BitDepth::Eight) => 4,
            other => bail!("the screenshot's pixels are {other:?}"),
        };
        Ok(Picture { width: info.width, height: info.height, depth, pixels })
    }

    fn pixel(&self, x: u32, y: u32) -> Option<&[u8]> {
        let at = (y as usize * self.width as usize + x as usize) * self.depth;
        self.pixels.get(at..at + 3)
    }
}

/// Compares every pixel. An adapter may show a dot of a coarse mode as several pixels, all of them alike.
fn compare(picture: &Picture, mode: Mode) -> Result<()> {
    let (width, height) = mode.size();
    let (wide, high) = (picture.width / width, picture.height / height);
    ensure!(
        (wide * width, high * height) == (picture.width, picture.height) && (1..=2).contains(&wide),
        "the screenshot has {}x{} pixels, and {width}x{height} are wanted",
        picture.width,
        picture.height
    );
    let mut wrong = 0;
    let mut first = None;
    for (y, x) in (0..picture.height).flat_map(|y| (0..picture.width).map(move |x| (y, x))) {
        let wanted = mode.pixel(x / wide, y / high);
        let found = picture.pixel(x, y);
        if found != Some(&wanted[..]) {
            wrong += 1;
            first.get_or_insert_with(|| format!("at {x},{y} is {found:02x?}, and {wanted:02x?} is wanted"));
        }
    }
    match first {
        Some(first) => bail!("{wrong} pixels are wrong; {first}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(mode: Mode, scale: u32) -> Picture {
        let (width, height) = mode.size();
        let (width, height) = (width * scale, height * scale);
        let pixels = (0..height)
            .flat_map(|y| (0..width).flat_map(move |x| mode.pixel(x / scale, y / scale)))
            .collect();
        Picture { width, height, depth: 3, pixels }
    }

    #[test]
    fn one_wrong_pixel_is_found() {
        for (_, mode) in Mode::ALL {
            let mut picture = painted(mode, 1);
            assert!(compare(&picture, mode).is_ok());
            *picture.pixels.last_mut().unwrap() ^= 1;
            assert!(compare(&picture, mode).unwrap_err().to_string().starts_with("1 pixels are wrong"));
        }
    }

    #[test]
    fn dots_may_be_doubled_but_not_halved() {
        let mut picture = painted(Mode::Chained, 2);
        assert!(compare(&picture, Mode::Chained).is_ok());
        picture.pixels[3] ^= 0xff;
        assert!(compare(&picture, Mode::Chained).is_err());
        assert!(compare(&painted(Mode::Chained, 1), Mode::Planes).is_err());
    }
}
