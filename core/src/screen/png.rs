//! A picture of the screen as a PNG file.

use std::io::{self, Write};

use super::Frame;

/// Writes `frame` as an RGB image of 8 bits a channel.
///
/// # Errors
///
/// What `out` reports; `InvalidInput` for a frame without pixels or with too few.
pub fn write(frame: &Frame, out: &mut dyn Write) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let width = u32::try_from(frame.width).map_err(|_| invalid())?;
    let height = u32::try_from(frame.height).map_err(|_| invalid())?;
    let mut encoder = png::Encoder::new(out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(io_error)?;
    writer.write_image_data(&frame.rgb).map_err(io_error)?;
    writer.finish().map_err(io_error)
}

fn io_error(error: png::EncodingError) -> io::Error {
    match error {
        png::EncodingError::IoError(error) => error,
        _ => io::ErrorKind::InvalidInput.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(file: &[u8]) -> Frame {
        let mut reader = png::Decoder::new(io::Cursor::new(file)).read_info().unwrap();
        let mut rgb = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut rgb).unwrap();
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        Frame { width: info.width as usize, height: info.height as usize, rgb }
    }

    #[test]
    fn a_frame_comes_back_pixel_by_pixel() {
        let rgb = (0..7 * 5 * 3).map(|n: u32| n.wrapping_mul(89).to_le_bytes()[0]).collect();
        let frame = Frame { width: 7, height: 5, rgb };
        let mut file = Vec::new();
        write(&frame, &mut file).unwrap();
        assert_eq!(decode(&file), frame);
    }

    #[test]
    fn a_frame_that_is_none_is_refused() {
        for (width, height, bytes) in [(0, 5, 0), (5, 0, 0), (2, 2, 11), (2, 2, 13)] {
            let frame = Frame { width, height, rgb: vec![0; bytes] };
            assert_eq!(write(&frame, &mut Vec::new()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
