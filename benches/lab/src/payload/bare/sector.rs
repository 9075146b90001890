//! The boot sector: reads the program and goes to 32-bit mode.

use crate::payload::code::{self, Code};

/// Sectors that are read: what fits between the program's address and 64 KiB.
const SECTORS: u8 = 60;
/// Address of the program.
const PROGRAM: u16 = 0x8000;
/// Offset in the sector, and so address less 0x7c00, from where a second processor goes on.
const ENTRY: usize = 0x40;
/// Real-mode address of that place.
pub const SECOND: u16 = 0x7c00 + 0x40;

/// A disk of 1 MiB with the boot sector and the program behind it.
pub fn disk(program: &[u8]) -> Vec<u8> {
    assert!(program.len() <= usize::from(SECTORS) * 512, "the program has {} bytes", program.len());
    let mut disk = boot_sector();
    disk.extend_from_slice(program);
    disk.resize(1 << 20, 0);
    disk
}

fn boot_sector() -> Vec<u8> {
    let mut code = Code::at(0x7c00);
    code.op(&[0x31, 0xc0, 0x8e, 0xd8]); //                  xor ax, ax; mov ds, ax
    code.op(&[0x8e, 0xd0, 0xbc, 0x00, 0x7c]); //            mov ss, ax; mov sp, 0x7c00
    code.op(&[0x52, 0xb8, 0x03, 0x00]); //                  push dx; mov ax, 3
    code.op(&[0xcd, 0x10, 0x5a]); //                        int 0x10: text mode; pop dx: the drive
    code.op16(&[0xbe], 0); //                               mov si, packet
    let packet_operand = code.here();
    code.op(&[0xb4, 0x42, 0xcd, 0x13]); //                  mov ah, 0x42; int 0x13: read
    code.op(&[0x73, 0x08]); //                              jnc +8
    code.op(&[0xba, 0x02, 0x04, 0xb0, b'!', 0xee]); //      mov dx, 0x402; mov al, '!'; out dx, al
    code.op(&[0xf4, 0xf4]); //                              hlt; hlt
    // A second processor comes from here on, at a place that it knows.
    let filled = usize::from(code.offset(code.here())) - 0x7c00;
    code.op(&vec![0x90; ENTRY - filled]);
    code.op(&[0xfa, 0x31, 0xc0, 0x8e, 0xd8]); //            cli; xor ax, ax; mov ds, ax
    code.op16(&[0x0f, 0x01, 0x16], 0); //                   lgdt [table]
    let table_operand = code.here();
    code.op(&[0x0f, 0x20, 0xc0, 0x0c, 0x01]); //            mov eax, cr0; or al, 1
    code.op(&[0x0f, 0x22, 0xc0]); //                        mov cr0, eax
    code.op16(&[0xea], PROGRAM).op(&[0x08, 0x00]); //       jmp 8:program
    let entries = code.offset(code.here());
    code.op(&[0; 8]);
    code.op(&[0xff, 0xff, 0, 0, 0, 0x9a, 0xcf, 0]); //  8: code, 32 bits, 4 GiB
    code.op(&[0xff, 0xff, 0, 0, 0, 0x92, 0xcf, 0]); //  16: data, 4 GiB
    let table = code.offset(code.here());
    code.op16(&[23, 0], entries).op(&[0, 0]); //            limit and address of the table
    let packet = code.offset(code.here());
    code.op(&[0x10, 0, SECTORS, 0]); //                     length; sectors
    code.op16(&[], PROGRAM).op(&[0, 0]); //                 to
    code.op(&[1, 0, 0, 0, 0, 0, 0, 0]); //                  from sector 1
    code.patch_before(packet_operand, packet);
    code.patch_before(table_operand, table);
    code::sector(code.bytes())
}
