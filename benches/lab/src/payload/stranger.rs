//! A boot sector that leaves an adapter in a state that no firmware would: 256 colours with a palette of its own, the
//! window at a0000 only, a turned picture memory, and the mask of the palette half open; then it halts.

use super::code::{self, Code};

/// What it says on the debug console when the adapter is in that state.
pub const DONE: &str = "left strange";

const LOOP: u8 = 0xe2;

/// A disk of 1 MiB that starts with the boot sector.
pub fn disk() -> Vec<u8> {
    let mut code = Code::at(0x7c00);
    code.begin();
    code.op16(&[0xb8], 0x0013).op(&[0xcd, 0x10]); //   mov ax, 0x13; int 0x10
    code.op16(&[0xba], 0x3c8).op(&[0x30, 0xc0, 0xee, 0x42]); // mov dx, 0x3c8; xor al, al; out dx, al; inc dx
    code.op16(&[0xb9], 768); //                        mov cx, 768
    let colour = code.here();
    code.op(&[0x88, 0xc8, 0xf6, 0xd0, 0xee]); //       mov al, cl; not al; out dx, al
    code.back(LOOP, colour);
    code.op(&[0xb8, 0x00, 0xa0, 0x8e, 0xc0]); //       mov ax, 0xa000; mov es, ax
    code.op(&[0x31, 0xff]).op16(&[0xb9], 32000); //    xor di, di; mov cx, 32000
    let dot = code.here();
    code.op(&[0x89, 0xf8, 0xab]); //                   mov ax, di; stosw
    code.back(LOOP, dot);
    // Graphics controller: turned by 3, set/reset of planes, a bit mask; sequencer: one plane.
    for (port, index, value) in
        [(0x3ce_u16, 3, 3), (0x3ce, 0, 5), (0x3ce, 1, 5), (0x3ce, 8, 0x3c), (0x3c4, 2, 4), (0x3d4, 0x0c, 9)]
    {
        code.op16(&[0xba], port).op(&[0xb8, index, value, 0xef]); // mov dx; mov ax; out dx, ax
    }
    code.op16(&[0xba], 0x3c6).op(&[0xb0, 0x5a, 0xee]); // mov dx, 0x3c6; mov al, 0x5a; out dx, al
    code.op16(&[0xba], 0x402); //                      mov dx, 0x402
    for byte in DONE.bytes() {
        code.op(&[0xb0, byte, 0xee]); //               mov al, byte; out dx, al
    }
    code.op(&[0xfa, 0xf4, 0xeb, 0xfd]); //       wait: cli; hlt; jmp wait
    code::disk(code.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_disk_that_boots() {
        let disk = disk();
        assert_eq!((disk.len(), disk[510], disk[511]), (1 << 20, 0x55, 0xaa));
    }
}
