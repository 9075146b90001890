//! A boot sector that paints, and the picture that it must make.
//!
//! The picture is computed by [`Mode::pixel`] from the pattern's definition, not from what the program
//! does to the adapter:
//!
//! | mode | picture | pattern |
//! |---|---|---|
//! | 3, text | 720x400 | cell i is a block in the colour i & 15, or, where bit 7 of i is set, blank on (i >> 4) & 7 |
//! | 12h, planes | 640x480 | colour (x / 40 + y / 30) & 15 of the default palette |
//! | 13h, chained | 320x200 | entry (x + y) & 255 of a palette of its own |
//! | VBE 640x480, 32 bits | 640x480 | red x / 8, green y, blue x / 8 xor y |

use super::code::{self, Code};

/// A mode that is painted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 80x25 characters.
    Text,
    /// 640x480, 16 colours in four planes.
    Planes,
    /// 320x200, 256 colours.
    Chained,
    /// 640x480, 32 bits a pixel, by the linear framebuffer.
    Linear,
}

/// The 16 colours of text and of mode 12h.
const COLORS: [[u8; 3]; 16] = [
    [0x00, 0x00, 0x00],
    [0x00, 0x00, 0xaa],
    [0x00, 0xaa, 0x00],
    [0x00, 0xaa, 0xaa],
    [0xaa, 0x00, 0x00],
    [0xaa, 0x00, 0xaa],
    [0xaa, 0x55, 0x00],
    [0xaa, 0xaa, 0xaa],
    [0x55, 0x55, 0x55],
    [0x55, 0x55, 0xff],
    [0x55, 0xff, 0x55],
    [0x55, 0xff, 0xff],
    [0xff, 0x55, 0x55],
    [0xff, 0x55, 0xff],
    [0xff, 0xff, 0x55],
    [0xff, 0xff, 0xff],
];

impl Mode {
    /// All of them, with the names that tests use.
    pub const ALL: [(&'static str, Mode); 4] = [
        ("text", Mode::Text),
        ("planes", Mode::Planes),
        ("chained", Mode::Chained),
        ("linear", Mode::Linear),
    ];

    /// Width and height of the picture.
    pub fn size(self) -> (u32, u32) {
        match self {
            Mode::Text => (720, 400),
            Mode::Planes | Mode::Linear => (640, 480),
            Mode::Chained => (320, 200),
        }
    }

    /// Red, green and blue that the picture must have at `x` and `y`.
    pub fn pixel(self, x: u32, y: u32) -> [u8; 3] {
        let low = |value: u32| value.to_le_bytes()[0];
        match self {
            Mode::Text => {
                let cell = (y / 16) * 80 + x / 9;
                let color = if cell & 0x80 == 0 { cell & 15 } else { cell >> 4 & 7 };
                COLORS[color as usize]
            }
            Mode::Planes => COLORS[((x / 40 + y / 30) & 15) as usize],
            Mode::Chained => {
                let entry = low(x + y);
                // Six bits of the palette become eight by repeating the upper two.
                [entry >> 2, !entry >> 2, entry & 0x3f].map(|six| six << 2 | six >> 4)
            }
            Mode::Linear => [low(x / 8), low(y), low((x / 8) ^ y)],
        }
    }

    /// The boot sector that paints it and turns the machine off.
    pub fn boot_sector(self) -> Vec<u8> {
        let mut code = Code::at(0x7c00);
        code.begin();
        match self {
            Mode::Text => text(&mut code),
            Mode::Planes => planes(&mut code),
            Mode::Chained => chained(&mut code),
            Mode::Linear => linear(&mut code),
        }
        code::sector(code.bytes())
    }

    /// A disk of 1 MiB that starts with the boot sector.
    pub fn disk(self) -> Vec<u8> {
        let mut disk = self.boot_sector();
        disk.resize(1 << 20, 0);
        disk
    }
}

const SHORT_JUMP_BELOW: u8 = 0x72;
const SHORT_JUMP_NOT_ZERO: u8 = 0x75;

fn text(code: &mut Code) {
    code.op(&[0xb8, 0x03, 0x00, 0xcd, 0x10]); //              mov ax, 3; int 0x10
    code.op(&[0xb4, 0x01, 0xb9, 0x00, 0x20, 0xcd, 0x10]); //  mov ah, 1; mov cx, 0x2000; int 0x10: no cursor
    code.op(&[0xb8, 0x00, 0xb8, 0x8e, 0xc0]); //              mov ax, 0xb800; mov es, ax
    code.op(&[0x31, 0xff, 0x31, 0xdb]); //                    xor di, di; xor bx, bx
    let cell = code.here();
    code.op(&[0x88, 0xdc, 0x80, 0xe4, 0x7f]); //        cell: mov ah, bl; and ah, 0x7f: no blinking
    code.op(&[0xb0, 0xdb]); //                                mov al, 0xdb: a full block
    code.op(&[0xf6, 0xc3, 0x80, 0x74, 0x02]); //              test bl, 0x80; jz +2
    code.op(&[0xb0, 0x20]); //                                mov al, ' '
    code.op(&[0xab, 0x43]); //                                stosw; inc bx
    code.op(&[0x81, 0xfb, 0xd0, 0x07]); //                    cmp bx, 2000
    code.back(SHORT_JUMP_BELOW, cell); //                     jb cell
    code.power_off();
}

fn planes(code: &mut Code) {
    code.op(&[0xb8, 0x12, 0x00, 0xcd, 0x10]); //        mov ax, 0x12; int 0x10
    code.op(&[0xb8, 0x00, 0xa0, 0x8e, 0xc0]); //        mov ax, 0xa000; mov es, ax
    code.op(&[0xba, 0xc4, 0x03, 0xb3, 0x01]); //        mov dx, 0x3c4; mov bl, 1: plane 0
    let plane = code.here();
    code.op(&[0xb0, 0x02, 0x88, 0xdc, 0xef]); // plane: mov al, 2; mov ah, bl; out dx, ax: map mask
    code.op(&[0x31, 0xff, 0x31, 0xf6]); //              xor di, di; xor si, si
    let line = code.here();
    code.op(&[0x89, 0xf0, 0xb1, 0x1e]); //        line: mov ax, si; mov cl, 30
    code.op(&[0xf6, 0xf1, 0x88, 0xc7]); //              div cl; mov bh, al: the first colour
    code.op(&[0xbd, 0x10, 0x00]); //                    mov bp, 16
    let block = code.here();
    code.op(&[0x30, 0xc0, 0x84, 0xdf]); //       block: xor al, al; test bh, bl
    code.op(&[0x74, 0x02, 0xb0, 0xff]); //              jz +2; mov al, 0xff
    code.op(&[0xb9, 0x05, 0x00, 0xf3, 0xaa]); //        mov cx, 5; rep stosb: 40 pixels
    code.op(&[0xfe, 0xc7, 0x4d]); //                    inc bh; dec bp
    code.back(SHORT_JUMP_NOT_ZERO, block); //           jnz block
    code.op(&[0x46, 0x81, 0xfe, 0xe0, 0x01]); //        inc si; cmp si, 480
    code.back(SHORT_JUMP_BELOW, line); //               jb line
    code.op(&[0x00, 0xdb, 0x80, 0xfb, 0x10]); //        add bl, bl; cmp bl, 16
    code.back(SHORT_JUMP_BELOW, plane); //              jb plane
    code.power_off();
}

fn chained(code: &mut Code) {
    code.op(&[0xb8, 0x13, 0x00, 0xcd, 0x10]); //        mov ax, 0x13; int 0x10
    code.op(&[0xba, 0xc8, 0x03, 0x30, 0xc0]); //        mov dx, 0x3c8; xor al, al
    code.op(&[0xee, 0x42, 0x31, 0xdb]); //              out dx, al; inc dx; xor bx, bx
    let entry = code.here();
    code.op(&[0x88, 0xd8, 0xc0, 0xe8, 0x02, 0xee]); // entry: mov al, bl; shr al, 2; out dx, al
    code.op(&[0x88, 0xd8, 0xf6, 0xd0]); //              mov al, bl; not al
    code.op(&[0xc0, 0xe8, 0x02, 0xee]); //              shr al, 2; out dx, al
    code.op(&[0x88, 0xd8, 0x24, 0x3f, 0xee]); //        mov al, bl; and al, 0x3f; out dx, al
    code.op(&[0xfe, 0xc3]); //                          inc bl
    code.back(SHORT_JUMP_NOT_ZERO, entry); //           jnz entry
    code.op(&[0xb8, 0x00, 0xa0, 0x8e, 0xc0]); //        mov ax, 0xa000; mov es, ax
    code.op(&[0x31, 0xff, 0x31, 0xf6]); //              xor di, di; xor si, si
    let line = code.here();
    code.op(&[0x31, 0xc9]); //                    line: xor cx, cx
    let pixel = code.here();
    code.op(&[0x89, 0xc8, 0x01, 0xf0, 0xaa]); // pixel: mov ax, cx; add ax, si; stosb
    code.op(&[0x41, 0x81, 0xf9, 0x40, 0x01]); //        inc cx; cmp cx, 320
    code.back(SHORT_JUMP_BELOW, pixel); //              jb pixel
    code.op(&[0x46, 0x81, 0xfe, 0xc8, 0x00]); //        inc si; cmp si, 200
    code.back(SHORT_JUMP_BELOW, line); //               jb line
    code.power_off();
}

/// VBE mode 142h is that of the Bochs interface with 640x480 pixels of 32 bits.
fn linear(code: &mut Code) {
    code.op(&[0x8e, 0xc0, 0xbf, 0x00, 0x80]); //        mov es, ax; mov di, 0x8000
    code.op(&[0xb8, 0x01, 0x4f, 0xb9, 0x42, 0x01]); //  mov ax, 0x4f01; mov cx, 0x142
    code.op(&[0xcd, 0x10]); //                          int 0x10: mode information
    code.op(&[0xb8, 0x02, 0x4f, 0xbb, 0x42, 0x41]); //  mov ax, 0x4f02; mov bx, 0x4142: linear
    code.op(&[0xcd, 0x10]); //                          int 0x10
    code.op(&[0x66, 0x8b, 0x3e, 0x28, 0x80]); //        mov edi, [0x8028]: its address
    code.op(&[0xfa]); //                                cli
    code.op16(&[0x0f, 0x01, 0x16], 0); //               lgdt [table]
    let table_operand = code.here();
    code.op(&[0x0f, 0x20, 0xc0, 0x0c, 0x01]); //        mov eax, cr0; or al, 1
    code.op(&[0x0f, 0x22, 0xc0]); //                    mov cr0, eax
    code.op16(&[0xea], 0); //                           jmp 8:flat
    let jump_operand = code.here();
    code.op(&[0x08, 0x00]);
    let flat = code.here();
    code.op(&[0x66, 0xb8, 0x10, 0x00]); //        flat: mov ax, 0x10
    code.op(&[0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0]); //  mov ds, ax; mov es, ax; mov ss, ax
    code.op(&[0x31, 0xf6]); //                          xor esi, esi
    let line = code.here();
    code.op(&[0x31, 0xdb]); //                    line: xor ebx, ebx
    let block = code.here();
    code.op(&[0x89, 0xd8, 0x31, 0xf0]); //       block: mov eax, ebx; xor eax, esi
    code.op(&[0x0f, 0xb6, 0xc0]); //                    movzx eax, al: blue
    code.op(&[0x89, 0xda, 0xc1, 0xe2, 0x10]); //        mov edx, ebx; shl edx, 16: red
    code.op(&[0x09, 0xd0, 0x89, 0xf2]); //              or eax, edx; mov edx, esi
    code.op(&[0xc1, 0xe2, 0x08]); //                    shl edx, 8
    code.op(&[0x0f, 0xb7, 0xd2, 0x09, 0xd0]); //        movzx edx, dx; or eax, edx: green
    code.op(&[0xb9, 0x08, 0x00, 0x00, 0x00]); //        mov ecx, 8
    code.op(&[0xf3, 0xab]); //                          rep stosd
    code.op(&[0x43, 0x83, 0xfb, 0x50]); //              inc ebx; cmp ebx, 80
    code.back(SHORT_JUMP_BELOW, block); //              jb block
    code.op(&[0x46, 0x81, 0xfe, 0xe0, 0x01, 0x00, 0x00]); // inc esi; cmp esi, 480
    code.back(SHORT_JUMP_BELOW, line); //               jb line
    code.op(&[0x66, 0xba, 0x04, 0x06]); //              mov dx, 0x604
    code.op(&[0x66, 0xb8, 0x00, 0x20, 0x66, 0xef]); //  mov ax, 0x2000; out dx, ax: off
    code.op(&[0xf4, 0xeb, 0xfd]); //              wait: hlt; jmp wait
    let entries = code.offset(code.here());
    code.op(&[0; 8]);
    code.op(&[0xff, 0xff, 0, 0, 0, 0x9a, 0xcf, 0]); //  8: code, 32 bits, 4 GiB
    code.op(&[0xff, 0xff, 0, 0, 0, 0x92, 0xcf, 0]); //  16: data, 4 GiB
    let table = code.offset(code.here());
    code.op16(&[23, 0], entries).op(&[0, 0]); //        limit and address of the table
    let flat = code.offset(flat);
    code.patch_before(table_operand, table);
    code.patch_before(jump_operand, flat);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_a_boot_sector() {
        for (name, mode) in Mode::ALL {
            let sector = mode.boot_sector();
            assert_eq!((sector.len(), sector[510], sector[511]), (512, 0x55, 0xaa), "{name}");
            assert_eq!(mode.disk().len() % 512, 0);
        }
    }

    #[test]
    fn patterns_are_what_their_definition_says() {
        // Cell 0x85 of the text is blank on the colour (0x85 >> 4) & 7 = 0; cell 15 is a white block.
        assert_eq!(Mode::Text.pixel(9 * 15, 0), [0xff, 0xff, 0xff]);
        assert_eq!(Mode::Text.pixel(9 * (0x85 - 80), 16), [0, 0, 0]);
        assert_eq!(Mode::Planes.pixel(639, 479), COLORS[14]);
        assert_eq!(Mode::Chained.pixel(255, 0), [0xff, 0, 0xff]);
        assert_eq!(Mode::Linear.pixel(639, 256), [79, 0, 79]);
        assert_eq!(Mode::Linear.pixel(8, 255), [1, 255, 254]);
    }
}
