//! The smallest bzImage: its setup code prints a line, the command line and the start of the initial
//! ram disk by INT 10h, then turns the machine off. Its protected mode part is never entered.

use super::code::{Code, Place};

/// What it prints first.
pub const GREETING: &str = "Hello from the setup code";
/// Bytes of the ram disk that are printed; they must end with a NUL within.
pub const SHOWN: u16 = 32;

/// Offsets in the setup header, which are offsets in DS too.
const COMMAND_LINE: u16 = 0x228;
const RAM_DISK: u16 = 0x218;
/// The code lies behind the header.
const CODE: u16 = 0x270;
/// Where the ram disk's bytes are copied to, to be seen in real mode.
const COPY_SEGMENT: u16 = 0x3000;

/// The image.
pub fn image() -> Vec<u8> {
    let mut image = vec![0; 5 * 512];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[4]); //                                    sectors of setup code behind the first
    put(0x1fe, &[0x55, 0xaa]);
    put(0x200, &[0xeb, 0x6e]); //                           jmp 0x270
    put(0x202, b"HdrS");
    put(0x206, &0x20c_u16.to_le_bytes()); //                boot protocol 2.12
    put(0x211, &[1]); //                                    loaded high
    put(0x22c, &0x37ff_ffff_u32.to_le_bytes()); //          highest byte of the ram disk
    put(0x230, &0x1000_u32.to_le_bytes()); //               alignment
    put(0x238, &255_u32.to_le_bytes()); //                  length of the command line
    put(0x258, &0x10_0000_u64.to_le_bytes()); //            preferred address
    put(0x260, &0x1000_u32.to_le_bytes()); //               memory to start with
    let code = setup();
    put(usize::from(CODE), code.bytes());
    // The protected mode part: halts, should it ever run.
    image.extend_from_slice(&[0xf4; 512]);
    image
}

fn setup() -> Code {
    let mut code = Code::at(CODE);
    // The data first, so that the code knows where it is.
    code.op16(&[0xe9], 0); //                               jmp start
    let start_operand = code.here();
    let greeting = text(&mut code, &format!("{GREETING}\r\ncommand line: "));
    let between = text(&mut code, "\r\nram disk: ");
    let end = text(&mut code, "\r\n");
    let move_table = code.offset(code.here());
    code.op(&[0; 16]);
    code.op(&[0xff, 0xff, 0, 0, 0, 0x93, 0, 0]); //         from: filled in below
    let [low, high] = COPY_SEGMENT.to_le_bytes();
    // Segment 0x3000 is linear 0x30000.
    code.op(&[0xff, 0xff, low << 4, low >> 4 | high << 4, high >> 4, 0x93, 0, 0]);
    code.op(&[0; 16]);
    let print = code.here();
    code.op(&[0xac, 0x84, 0xc0, 0x74, 0x09]); //     print: lodsb; test al, al; jz +9
    code.op(&[0xb4, 0x0e, 0xbb, 0x07, 0x00, 0xcd, 0x10]); // mov ah, 0xe; mov bx, 7; int 0x10
    code.back(0xeb, print); //                              jmp print
    code.op(&[0xc3]); //                                    ret
    let start = code.here();
    code.op(&[0x8c, 0xc8, 0x83, 0xe8, 0x20]); //     start: mov ax, cs; sub ax, 0x20
    code.op(&[0x8e, 0xd8, 0xfc]); //                        mov ds, ax; cld
    say(&mut code, greeting, print);
    code.op(&[0x1e]); //                                    push ds
    code.op16(&[0x66, 0xa1], COMMAND_LINE); //              mov eax, [cmd_line_ptr]
    code.op(&[0x66, 0xc1, 0xe8, 0x04]); //                  shr eax, 4
    code.op(&[0x8e, 0xd8, 0x31, 0xf6]); //                  mov ds, ax; xor si, si
    call(&mut code, print);
    code.op(&[0x1f]); //                                    pop ds
    say(&mut code, between, print);
    code.op16(&[0x66, 0xa1], RAM_DISK); //                  mov eax, [ramdisk_image]
    code.op16(&[0xa3], move_table + 0x12); //               mov [from.base], ax
    code.op(&[0x66, 0xc1, 0xe8, 0x10]); //                  shr eax, 16
    code.op16(&[0xa2], move_table + 0x14); //               mov [from.base + 2], al
    code.op16(&[0x88, 0x26], move_table + 0x17); //         mov [from.base + 3], ah
    code.op(&[0x1e, 0x07]); //                              push ds; pop es
    code.op16(&[0xbe], move_table); //                      mov si, table
    code.op16(&[0xb9], SHOWN / 2); //                mov cx, words
    code.op(&[0xb4, 0x87, 0xcd, 0x15]); //                  mov ah, 0x87; int 0x15: move
    code.op(&[0x1e]); //                                    push ds
    code.op16(&[0xb8], COPY_SEGMENT); //                    mov ax, segment
    code.op(&[0x8e, 0xd8, 0x31, 0xf6]); //                  mov ds, ax; xor si, si
    call(&mut code, print);
    code.op(&[0x1f]); //                                    pop ds
    say(&mut code, end, print);
    code.power_off();
    let distance = code.offset(start) - code.offset(start_operand);
    code.patch_before(start_operand, distance);
    code
}

/// Places a string with its closing NUL and says where.
fn text(code: &mut Code, text: &str) -> u16 {
    let place = code.offset(code.here());
    code.op(text.as_bytes()).op(&[0]);
    place
}

/// Prints the string at the offset `text` of DS.
fn say(code: &mut Code, text: u16, print: Place) {
    code.op16(&[0xbe], text); //                            mov si, text
    call(code, print);
}

fn call(code: &mut Code, target: Place) {
    let next = code.offset(code.here()) + 3;
    let distance = code.offset(target).wrapping_sub(next);
    code.op16(&[0xe8], distance); //                        call target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_a_bzimage_with_its_code_behind_the_header() {
        let image = image();
        assert_eq!(image.len(), 6 * 512);
        assert_eq!(&image[0x202..0x206], b"HdrS");
        assert_eq!(usize::from(image[0x201]) + 0x202, usize::from(CODE));
        let code = setup();
        assert!(usize::from(CODE) + code.bytes().len() < 5 * 512);
        assert!(code.bytes().windows(GREETING.len()).any(|bytes| bytes == GREETING.as_bytes()));
    }
}
