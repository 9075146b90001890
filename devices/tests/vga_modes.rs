//! The standard modes, set through the ports as a VBIOS sets them, painted through the window, and
//! seen pixel by pixel.

#[path = "vga_modes/card.rs"]
mod card;

use card::{Card, MODE_3, MODE_12, MODE_13, shade};
use trapline_devices::vga::scanout::{self, Mode};
use trapline_devices::vga::{self, Snapshot, View, spec};
use trapline_io::{Device, Region, Width};

/// A font in which the bits of a line can be told from code and line.
fn glyph(code: u8, line: u8) -> u8 {
    code.wrapping_mul(31) ^ line.wrapping_mul(73) ^ 0x5a
}

/// Loads the font as VBIOSes do: plane 2 alone, then back to text.
fn load_font(card: &mut Card) {
    card.index_writes(0x3c4, &[(0, 1), (2, 4), (4, 7), (0, 3)]);
    card.index_writes(0x3ce, &[(4, 2), (5, 0), (6, 4)]);
    for code in 0..=255_u8 {
        for line in 0..16_u8 {
            card.store(
                0xa_0000 + u64::from(code) * 32 + u64::from(line),
                Width::B1,
                glyph(code, line).into(),
            );
        }
    }
    card.index_writes(0x3c4, &[(0, 1), (2, 3), (4, 3), (0, 3)]);
    card.index_writes(0x3ce, &[(4, 0), (5, 0x10), (6, 0x0e)]);
}

/// What stands in a cell of the test picture.
fn painted(column: usize, row: usize) -> (u8, u8) {
    let cell = row * 80 + column;
    (u8::try_from(cell * 7 % 256).unwrap(), u8::try_from(cell * 13 % 256).unwrap())
}

fn text_card() -> Card {
    let mut card = Card::new();
    card.set_mode(&MODE_3);
    load_font(&mut card);
    for row in 0..25 {
        for column in 0..80 {
            let (code, attribute) = painted(column, row);
            let at = 0xb_8000 + u64::try_from(row * 80 + column).unwrap() * 2;
            card.store(at, Width::B2, u64::from(code) | u64::from(attribute) << 8);
        }
    }
    card
}

#[test]
fn mode_3_is_text_of_720_by_400() {
    let mut card = text_card();
    // The cursor: lines 13 and 14 of the cell at column 5, row 2.
    card.index_writes(0x3d4, &[(0x0a, 13), (0x0b, 14), (0x0e, 0), (0x0f, 165)]);
    let frame = card.frame();
    assert_eq!((frame.width, frame.height), (720, 400));
    for y in 0..400 {
        for x in 0..720 {
            let (column, row, dot, line) = (x / 9, y / 16, x % 9, y % 16);
            let (code, attribute) = painted(column, row);
            let bits = glyph(code, u8::try_from(line).unwrap());
            let on = match dot {
                8 => (0xc0..=0xdf).contains(&code) && bits & 1 == 1,
                _ => bits >> (7 - dot) & 1 == 1,
            };
            let on = on || (column, row) == (5, 2) && (13..=14).contains(&line);
            // Bit 7 blinks: what blinks is shown, on a background of three bits.
            let value = if on { attribute & 15 } else { attribute >> 4 & 7 };
            assert_eq!(frame.pixel(x, y), Some(card.sixteen(value)), "{x},{y}");
        }
    }
}

#[test]
fn mode_3_is_80_by_25_characters() {
    let mut card = text_card();
    for (place, byte) in (0xb_8000..).step_by(2).zip("Trapline: éß░".chars().map(cp437)) {
        card.store(place, Width::B1, byte.into());
    }
    for column in 13..80 {
        card.store(0xb_8000 + column * 2, Width::B2, 0x0720);
    }
    card.index_writes(0x3d4, &[(0x0a, 13), (0x0b, 14), (0x0e, 0), (0x0f, 165)]);
    let text = card.text().unwrap();
    assert_eq!((text.columns, text.rows, text.cells.len(), text.cursor), (80, 25, 2000, Some((5, 2))));
    assert_eq!(text.to_string().lines().next(), Some("Trapline: éß░"));
    for (index, cell) in text.cells.iter().enumerate().skip(80) {
        assert_eq!((cell.code, cell.attribute), painted(index % 80, index / 80));
    }
    card.index_writes(0x3d4, &[(0x0a, 0x2d)]);
    assert_eq!(card.text().unwrap().cursor, None);
}

fn cp437(character: char) -> u8 {
    match character {
        'é' => 0x82,
        'ß' => 0xe1,
        '░' => 0xb0,
        other => u8::try_from(other).unwrap(),
    }
}

#[test]
fn the_start_address_scrolls_text() {
    let mut card = text_card();
    // One row further, in two 16-bit accesses as Linux does it.
    card.write_port(0x3d4, Width::B2, 0x000c);
    card.write_port(0x3d4, Width::B2, 80 << 8 | 0x0d);
    let text = card.text().unwrap();
    assert_eq!((text.cells[0].code, text.cells[0].attribute), painted(0, 1));
    // Below a line compare at the middle the screen shows the memory's start.
    card.index_writes(0x3d4, &[(0x11, 0x0e), (0x18, 199), (7, 0x0f), (9, 0x0f)]);
    let text = card.text().unwrap();
    assert_eq!(text.rows, 26);
    // 12 rows and half a row, then the start.
    assert_eq!(text.rows().nth(13).map(|row| (row[0].code, row[0].attribute)), Some(painted(0, 0)));
    let frame = card.frame();
    let bits = glyph(painted(0, 0).0, 0);
    let (_, attribute) = painted(0, 0);
    let value = if bits & 0x80 != 0 { attribute & 15 } else { attribute >> 4 & 7 };
    assert_eq!(frame.pixel(0, 200), Some(card.sixteen(value)));
}

#[test]
fn forty_columns_are_as_wide_as_eighty() {
    let mut card = text_card();
    card.index_writes(0x3c4, &[(1, 8)]);
    card.index_writes(0x3d4, &[(0x11, 0x0e), (1, 39), (0x13, 20)]);
    let (frame, text) = (card.frame(), card.text().unwrap());
    assert_eq!((frame.width, frame.height, text.columns, text.rows), (720, 400, 40, 25));
    assert_eq!(frame.pixel(0, 0), frame.pixel(1, 0));
}

#[test]
fn mode_12_is_640_by_480_in_16_colors() {
    let mut card = Card::new();
    card.set_mode(&MODE_12);
    // Write mode 2: each access draws eight dots of one colour; a bit mask draws one.
    card.index_writes(0x3ce, &[(5, 2)]);
    let color = |x: usize, y: usize| shade(x / 8 * 3 + y * 5) & 15;
    for y in 0..480 {
        for cell in 0..80 {
            card.store(0xa_0000 + (y * 80 + cell) as u64, Width::B1, color(cell * 8, y).into());
        }
    }
    card.index_writes(0x3ce, &[(8, 0x10)]);
    for y in 100..108_usize {
        let at = 0xa_0000 + (y * 80 + 7) as u64;
        card.load(at, Width::B1);
        card.store(at, Width::B1, 9);
    }
    let frame = card.frame();
    assert_eq!((frame.width, frame.height), (640, 480));
    for y in 0..480 {
        for x in 0..640 {
            let value = if x == 59 && (100..108).contains(&y) { 9 } else { color(x, y) };
            assert_eq!(frame.pixel(x, y), Some(card.sixteen(value)), "{x},{y}");
        }
    }
    assert_eq!(card.text(), None);
}

#[test]
fn mode_13_is_320_by_200_dots_of_two_by_two() {
    let mut card = Card::new();
    card.set_mode(&MODE_13);
    for at in (0..64_000_usize).step_by(4) {
        let bytes = [at, at + 1, at + 2, at + 3].map(shade);
        card.store(0xa_0000 + at as u64, Width::B4, u32::from_le_bytes(bytes).into());
    }
    let frame = card.frame();
    assert_eq!((frame.width, frame.height), (640, 400));
    for y in 0..400 {
        for x in 0..640 {
            let value = shade(y / 2 * 320 + x / 2);
            assert_eq!(frame.pixel(x, y), Some(card.color(value)), "{x},{y}");
        }
    }
}

#[test]
fn unchained_mode_13_has_four_pages() {
    let mut card = Card::new();
    card.set_mode(&MODE_13);
    card.index_writes(0x3c4, &[(4, 6)]);
    card.index_writes(0x3d4, &[(0x14, 0), (0x17, 0xe3), (0x0c, 0x40)]);
    for plane in 0..4_usize {
        card.index_writes(0x3c4, &[(2, 1 << plane)]);
        for cell in 0..16_000_usize {
            card.store(0xa_4000 + cell as u64, Width::B1, shade(cell * 4 + plane).into());
        }
    }
    let frame = card.frame();
    for y in (0..400).step_by(7) {
        for x in 0..640 {
            assert_eq!(frame.pixel(x, y), Some(card.color(shade(y / 2 * 320 + x / 2))), "{x},{y}");
        }
    }
}

#[test]
fn cga_mode_4_interleaves_its_lines() {
    let mut card = Card::new();
    card.set_mode(&MODE_13);
    card.index_writes(0x3c4, &[(1, 9), (2, 3), (4, 2)]);
    card.index_writes(0x3ce, &[(5, 0x30), (6, 0x0f)]);
    let crtc = [(0x11, 0x0e), (1, 39), (9, 0xc1), (0x13, 20), (0x14, 0), (0x17, 0xa2)];
    card.index_writes(0x3d4, &crtc);
    card.attributes(&[(0x10, 1), (0x12, 3)]);
    for y in 0..200_usize {
        for byte in 0..80_usize {
            let at = 0xb_8000 + y % 2 * 0x2000 + y / 2 * 80 + byte;
            card.store(at as u64, Width::B1, shade(y * 80 + byte).into());
        }
    }
    let frame = card.frame();
    assert_eq!((frame.width, frame.height), (640, 400));
    for y in 0..400 {
        for x in 0..640 {
            let byte = shade(y / 2 * 80 + x / 8);
            let value = byte >> (6 - x / 2 % 4 * 2) & 3;
            assert_eq!(frame.pixel(x, y), Some(card.sixteen(value)), "{x},{y}");
        }
    }
}

#[test]
fn a_screen_that_is_off_is_black() {
    let mut card = text_card();
    assert_eq!(scanout::mode(&Snapshot::of(&card.0)), Mode::Text);
    card.index_writes(0x3c4, &[(1, 0x20)]);
    assert_eq!((card.text(), card.frame().width), (None, 720));
    assert!(card.frame().rgb.iter().all(|byte| *byte == 0));
    card.index_writes(0x3c4, &[(1, 0)]);
    card.read_port(0x3da);
    card.write_port(0x3c0, Width::B1, 0);
    assert_eq!(scanout::mode(&Snapshot::of(&card.0)), Mode::Off);
}

#[test]
fn the_screen_is_seen_through_its_memories() {
    let card = text_card();
    let mapped = |shared: &trapline_devices::vga::Shared, size| {
        let file = shared.file().try_clone().unwrap();
        trapline_devices::vga::Shared::open(file, size).unwrap().memory().clone()
    };
    let (screen, vram) =
        (mapped(card.0.screen(), vga::SCREEN_SIZE), mapped(card.0.framebuffer(), spec::VRAM_SIZE));
    let view = View::new(screen.clone(), vram.clone()).unwrap();
    assert_eq!(view.frame(), Ok(card.frame()));
    assert_eq!(view.text(), Ok(card.text()));
    let bytes = Snapshot::of(&card.0).to_bytes().to_vec();
    assert_eq!(Snapshot::from_bytes(&bytes), Ok(Snapshot::of(&card.0)));
    assert!(View::new(vram, screen).is_none());
}

/// Sets a mode of the Bochs interface, as SeaVGABIOS does.
fn set_bochs(card: &mut Card, width: u16, height: u16, bpp: u16) {
    for (register, value) in [(4, 0), (3, bpp), (1, width), (2, height), (5, 0), (4, 0x41)] {
        card.bochs(register, value);
    }
    card.index_writes(0x3c4, &[(2, 0xf), (4, 6)]);
    card.index_writes(0x3ce, &[(5, 0), (6, 5), (8, 0xff)]);
    card.read_port(0x3da);
    card.write_port(0x3c0, Width::B1, 0x20);
}

#[test]
fn bochs_640_by_480_by_32_is_seen_linear_and_banked() {
    let mut card = Card::new();
    card.set_mode(&MODE_3);
    set_bochs(&mut card, 640, 480, 32);
    let pixel = |at: usize| u32::from_le_bytes([shade(at), shade(at * 3 + 1), shade(at * 5 + 2), 0]);
    for at in 0..640 * 480_usize {
        let place = at as u64 * 4;
        if at % 2 == 0 {
            card.0.write(Region::bar(0), place, Width::B4, pixel(at).into()).unwrap();
            continue;
        }
        if place % 0x1_0000 == 4 {
            card.bochs(5, u16::try_from(place >> 16).unwrap());
        }
        card.store(0xa_0000 + place % 0x1_0000, Width::B4, pixel(at).into());
    }
    let frame = card.frame();
    assert_eq!((frame.width, frame.height), (640, 480));
    for y in 0..480 {
        for x in 0..640 {
            let [blue, green, red, _] = pixel(y * 640 + x).to_le_bytes();
            assert_eq!(frame.pixel(x, y), Some([red, green, blue]), "{x},{y}");
        }
    }
}

#[test]
fn bochs_offsets_move_the_picture() {
    for (bpp, size) in [(8, 1), (16, 2), (24, 3), (32, 4)] {
        let mut card = Card::new();
        card.set_mode(&MODE_13);
        set_bochs(&mut card, 320, 200, bpp);
        for (register, value) in [(6, 512), (8, 100), (9, 50)] {
            card.bochs(register, value);
        }
        let place = (150 * 512 + 110) * size;
        card.0.write(Region::bar(0), place, Width::B8, 0xffff_ffff >> (32 - 8 * size)).unwrap();
        let frame = card.frame();
        let lit: Vec<usize> =
            (0..320 * 200).filter(|at| frame.pixel(at % 320, at / 320) != frame.pixel(0, 0)).collect();
        assert_eq!(lit, [100 * 320 + 10], "{bpp}");
    }
}

#[test]
fn bochs_at_4_bits_is_planar() {
    let mut card = Card::new();
    card.set_mode(&MODE_12);
    set_bochs(&mut card, 1024, 768, 4);
    card.index_writes(0x3ce, &[(5, 2)]);
    let color = |cell: usize| shade(cell) & 15;
    for cell in 0..1024 / 8 * 768_usize {
        if cell % 0x1_0000 == 0 {
            card.bochs(5, u16::try_from(cell >> 16).unwrap());
        }
        card.store(0xa_0000 + (cell % 0x1_0000) as u64, Width::B1, color(cell).into());
    }
    let frame = card.frame();
    for y in 0..768 {
        for x in (0..1024).step_by(3) {
            assert_eq!(frame.pixel(x, y), Some(card.sixteen(color(y * 128 + x / 8))), "{x},{y}");
        }
    }
}
