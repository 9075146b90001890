//! A program in real mode that goes through what an adapter's window can mean: text, fonts, pages, the start
//! address, 256 colours, planes, a bank of VBE, and text again.
//!
//! After each step it says the step's name on the debug console, by [`said`], and waits for a byte on the serial
//! line, so that the picture can be looked at; at last it turns the machine off. Nothing blinks.
//!
//! | step | what |
//! |---|---|
//! | text | every character in every colour, written to the window |
//! | font | other glyphs for 64 characters, in plane 2; then more text without a register in between |
//! | page | a second page behind the first one, shown by the start address |
//! | scroll | 30 lines, the start address moved for each; the last ones by 8-bit port writes |
//! | colours | mode 13h, a palette of its own, 64 lines painted |
//! | back | text by int 10h, and by the window |
//! | planes | mode 0dh over what memory held: set/reset, a bit mask, a copy by the latches, one plane |
//! | banks | VBE 640x480 with 256 colours, some of it painted in each of four banks |
//! | copy | text scrolled by copying, which reads the window; a glyph changed in between |
//! | mono | mode 7, whose window is at b0000 |

use super::code::{self, Code};

/// The steps' names, in order.
pub const STEPS: [&str; 10] =
    ["text", "font", "page", "scroll", "colours", "back", "planes", "banks", "copy", "mono"];

/// What the program says after a step, in a line of its own.
pub fn said(step: &str) -> String {
    format!("step {step} done\n")
}

const SHORT_JUMP_BELOW: u8 = 0x72;
const SHORT_JUMP_ZERO: u8 = 0x74;
const SHORT_JUMP_NOT_ZERO: u8 = 0x75;
const LOOP: u8 = 0xe2;

const SEQUENCER: u16 = 0x3c4;
const GRAPHICS: u16 = 0x3ce;
const CRTC: u16 = 0x3d4;
const TEXT: u16 = 0xb800;
const GRAPHIC: u16 = 0xa000;

/// Where the program is loaded, behind its boot sector.
const PROGRAM: u16 = 0x7e00;

/// The disk, of 1 MiB.
pub fn disk() -> Vec<u8> {
    let mut code = Code::at(PROGRAM);
    let steps: [fn(&mut Code); STEPS.len()] =
        [text, font, page, scroll, colours, back, planes, banks, copy, mono];
    for (name, step) in STEPS.iter().zip(steps) {
        step(&mut code);
        wait_after(&mut code, name);
    }
    code.power_off();
    let program = code.bytes();
    let sectors = u8::try_from(program.len().div_ceil(512)).expect("a small program");
    let mut disk = boot_sector(sectors);
    disk.extend_from_slice(program);
    disk.resize(1 << 20, 0);
    disk
}

/// Reads the program and goes there.
fn boot_sector(sectors: u8) -> Vec<u8> {
    let mut code = Code::at(0x7c00);
    code.begin().op16(&[0xbe], 0); //                  mov si, packet
    let operand = code.here();
    code.op(&[0xb4, 0x42, 0xcd, 0x13]); //             mov ah, 0x42; int 0x13: read
    code.op16(&[0xea], PROGRAM).op(&[0, 0]); //        jmp 0:program
    let packet = code.offset(code.here());
    code.op(&[0x10, 0, sectors, 0]); //                length; sectors
    code.op16(&[], PROGRAM).op(&[0, 0]); //            to
    code.op(&[1, 0, 0, 0, 0, 0, 0, 0]); //             from sector 1
    code.patch_before(operand, packet);
    code::sector(code.bytes())
}

/// Says that a step is done, and takes a byte from the serial line.
fn wait_after(code: &mut Code, step: &str) {
    code.op16(&[0xba], 0x402); //                      mov dx, 0x402
    for byte in said(step).bytes() {
        code.op(&[0xb0, byte, 0xee]); //               mov al, byte; out dx, al
    }
    code.op16(&[0xba], 0x3fd); //                      mov dx, 0x3fd
    let again = code.here();
    code.op(&[0xec, 0xa8, 0x01]); //                   in al, dx; test al, 1
    code.back(SHORT_JUMP_ZERO, again);
    code.op16(&[0xba], 0x3f8).op(&[0xec]); //          mov dx, 0x3f8; in al, dx
}

fn int10(code: &mut Code, ax: u16) {
    code.op16(&[0xb8], ax).op(&[0xcd, 0x10]);
}

/// An index and a value in one write, in each case.
fn registers(code: &mut Code, port: u16, values: &[(u8, u8)]) {
    code.op16(&[0xba], port); //                       mov dx, port
    for (index, value) in values {
        code.op(&[0xb8, *index, *value, 0xef]); //     mov ax, value << 8 | index; out dx, ax
    }
}

/// mov es, segment
fn window(code: &mut Code, segment: u16) {
    code.op16(&[0xb8], segment).op(&[0x8e, 0xc0]);
}

/// `count` words of this value from `at` on.
fn fill(code: &mut Code, at: u16, count: u16, value: u16) {
    code.op16(&[0xbf], at).op16(&[0xb9], count).op16(&[0xb8], value); // mov di; mov cx; mov ax
    code.op(&[0xf3, 0xab]); //                                           rep stosw
}

/// Text mode 3 with a clear screen and without a cursor.
fn text_mode(code: &mut Code) {
    int10(code, 0x0003);
    no_cursor(code);
    window(code, TEXT);
}

fn no_cursor(code: &mut Code) {
    code.op(&[0xb4, 0x01, 0xb9, 0x00, 0x20, 0xcd, 0x10]); // mov ah, 1; mov cx, 0x2000; int 0x10
}

fn text(code: &mut Code) {
    text_mode(code);
    code.op(&[0x31, 0xff, 0x31, 0xdb]); //             xor di, di; xor bx, bx
    let cell = code.here();
    code.op(&[0x88, 0xd8, 0x88, 0xdc]); //             mov al, bl; mov ah, bl
    code.op(&[0x00, 0xfc, 0x80, 0xe4, 0x7f]); //       add ah, bh; and ah, 0x7f: no blinking
    code.op(&[0xab, 0x43]); //                         stosw; inc bx
    code.op(&[0x81, 0xfb, 0xd0, 0x07]); //             cmp bx, 2000
    code.back(SHORT_JUMP_BELOW, cell);
}

/// Lets A0000 be plane 2, one byte after another.
fn to_the_font(code: &mut Code) {
    registers(code, SEQUENCER, &[(2, 4), (4, 7)]);
    registers(code, GRAPHICS, &[(4, 2), (5, 0), (6, 4)]);
    window(code, GRAPHIC);
}

/// Back to text.
fn from_the_font(code: &mut Code) {
    registers(code, SEQUENCER, &[(2, 3), (4, 3)]);
    registers(code, GRAPHICS, &[(4, 0), (5, 0x10), (6, 0x0e)]);
    window(code, TEXT);
}

/// Other glyphs for the characters from `first` to below `end`.
fn glyphs(code: &mut Code, first: u8, end: u8) {
    code.op16(&[0xbf], u16::from(first) * 32).op(&[0xb3, first]); // mov di; mov bl, first
    let glyph = code.here();
    code.op(&[0x88, 0xd8]).op16(&[0xb9], 16); //       mov al, bl; mov cx, 16
    let row = code.here();
    code.op(&[0xaa, 0x04, 0x1d]).back(LOOP, row); //   stosb; add al, 0x1d; loop
    code.op(&[0x83, 0xc7, 0x10]); //                   add di, 16
    code.op(&[0xfe, 0xc3, 0x80, 0xfb, end]); //        inc bl; cmp bl, end
    code.back(SHORT_JUMP_BELOW, glyph);
}

fn font(code: &mut Code) {
    to_the_font(code);
    glyphs(code, 0x20, 0x60);
    from_the_font(code);
    fill(code, 5 * 160, 80, 0x1e41);
}

fn page(code: &mut Code) {
    code.op16(&[0xbf], 4096).op16(&[0xb8], 0x1741); // mov di; mov ax
    let cell = code.here();
    code.op(&[0xab, 0x04, 0x07]); //                   stosw; add al, 7
    code.op16(&[0x81, 0xff], 4096 + 4000); //          cmp di, the page's end
    code.back(SHORT_JUMP_BELOW, cell);
    registers(code, CRTC, &[(0x0c, 0x08), (0x0d, 0x00)]);
}

fn scroll(code: &mut Code) {
    for line in 1..=30_u16 {
        let start = 0x800 + line * 80;
        let digit = 0x2f00 | (u16::from(b'A') + line);
        fill(code, (start + 24 * 80) * 2, 80, digit);
        let [low, high] = start.to_le_bytes();
        if line < 20 {
            registers(code, CRTC, &[(0x0c, high), (0x0d, low)]);
            continue;
        }
        code.op16(&[0xba], CRTC); //                   mov dx, 0x3d4
        for (index, value) in [(0x0c, high), (0x0d, low)] {
            code.op(&[0xb0, index, 0xee, 0x42]); //    mov al, index; out dx, al; inc dx
            code.op(&[0xb0, value, 0xee, 0x4a]); //    mov al, value; out dx, al; dec dx
        }
    }
}

fn colours(code: &mut Code) {
    int10(code, 0x0013);
    code.op16(&[0xba], 0x3c8).op(&[0x30, 0xc0, 0xee, 0x42]); // mov dx; xor al, al; out dx, al; inc dx
    code.op(&[0x31, 0xdb]); //                         xor bx, bx
    let entry = code.here();
    code.op(&[0x88, 0xd8, 0x24, 0x3f, 0xee]); //       mov al, bl; and al, 0x3f; out dx, al
    code.op(&[0x88, 0xd8, 0xc0, 0xe8, 0x02, 0xee]); // mov al, bl; shr al, 2; out dx, al
    code.op(&[0xf6, 0xd0, 0x24, 0x3f, 0xee]); //       not al; and al, 0x3f; out dx, al
    code.op(&[0xfe, 0xc3]).back(SHORT_JUMP_NOT_ZERO, entry); // inc bl
    window(code, GRAPHIC);
    code.op(&[0x31, 0xff]); //                         xor di, di
    let word = code.here();
    code.op(&[0x89, 0xf8, 0x30, 0xe0, 0xab]); //       mov ax, di; xor al, ah; stosw
    code.op16(&[0x81, 0xff], 64 * 320); //             cmp di
    code.back(SHORT_JUMP_BELOW, word);
}

fn back(code: &mut Code) {
    text_mode(code);
    code.op16(&[0xbe], u16::from(b'!')); //            mov si, '!'
    let character = code.here();
    code.op(&[0x89, 0xf0, 0xb4, 0x0e]); //             mov ax, si; mov ah, 0x0e
    code.op16(&[0xbb], 7).op(&[0xcd, 0x10]); //        mov bx, 7; int 0x10
    code.op(&[0x46, 0x83, 0xfe, 0x7e]); //             inc si; cmp si, '~'
    code.back(SHORT_JUMP_BELOW, character);
    window(code, TEXT);
    fill(code, 10 * 160, 240, 0x4e2a);
}

fn planes(code: &mut Code) {
    // Bit 7: memory stays as it is.
    int10(code, 0x008d);
    window(code, GRAPHIC);
    registers(code, SEQUENCER, &[(2, 0x0f)]);
    registers(code, GRAPHICS, &[(0, 0x0a), (1, 0x0f), (8, 0x3c)]);
    code.op16(&[0xbf], 2000).op16(&[0xb9], 2000); //   mov di; mov cx
    let byte = code.here();
    code.op(&[0x26, 0x8a, 0x05, 0xaa]); //             mov al, es:[di]; stosb: the latches first
    code.back(LOOP, byte);
    registers(code, GRAPHICS, &[(1, 0), (8, 0xff), (5, 1)]);
    code.op(&[0x1e, 0x06, 0x1f]); //                   push ds; push es; pop ds
    code.op16(&[0xbe], 1900).op16(&[0xbf], 5000).op16(&[0xb9], 800); // mov si; mov di; mov cx
    code.op(&[0xf3, 0xa4, 0x1f]); //                   rep movsb; pop ds
    registers(code, GRAPHICS, &[(5, 0)]);
    registers(code, SEQUENCER, &[(2, 1)]);
    fill(code, 6400, 400, 0x5aa5);
    registers(code, SEQUENCER, &[(2, 0x0f)]);
}

fn banks(code: &mut Code) {
    code.op16(&[0xbb], 0x0101); //                     mov bx, 0x101
    int10(code, 0x4f02);
    for bank in 0..4_u16 {
        code.op(&[0x31, 0xdb]).op16(&[0xba], bank); // xor bx, bx; mov dx, bank
        int10(code, 0x4f05);
        window(code, GRAPHIC);
        fill(code, bank * 0x2000, 1280, 0x0902 + bank * 0x0407);
    }
}

fn copy(code: &mut Code) {
    text_mode(code);
    for line in 0..24_u16 {
        fill(code, line * 160, 80, 0x0700 + (line << 8 & 0x700) + 0x41 + line);
    }
    for round in 0..3_u16 {
        code.op(&[0x1e, 0x06, 0x1f]); //               push ds; push es; pop ds
        code.op16(&[0xbe], 160).op16(&[0xbf], 0).op16(&[0xb9], 24 * 80); // mov si; mov di; mov cx
        code.op(&[0xf3, 0xa5, 0x1f]); //               rep movsw; pop ds
        fill(code, 24 * 160, 80, 0x3f30 + round);
        if round == 1 {
            to_the_font(code);
            glyphs(code, 0x45, 0x49);
            from_the_font(code);
        }
    }
}

fn mono(code: &mut Code) {
    int10(code, 0x0007);
    no_cursor(code);
    window(code, 0xb000);
    for line in 0..25_u16 {
        fill(code, line * 160, 20 + line * 2, 0x0f30 + line);
    }
    // What stands where the window is in the other modes does not show.
    window(code, TEXT);
    fill(code, 0, 16, 0x0740);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_disk_that_boots_and_says_every_step() {
        let disk = disk();
        assert_eq!((disk.len(), disk[510], disk[511]), (1 << 20, 0x55, 0xaa));
        // Each byte of what is said is an operand.
        let said: Vec<u8> = said("text").bytes().flat_map(|byte| [0xb0, byte, 0xee]).collect();
        assert!(disk.windows(said.len()).any(|window| window == said));
    }

    #[test]
    fn the_program_fits_below_the_firmwares_data() {
        let disk = disk();
        let end = disk.iter().rposition(|byte| *byte != 0).unwrap();
        assert!(end < 64 << 9, "{end} bytes");
    }
}
