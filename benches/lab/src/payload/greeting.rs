//! A boot sector that writes a line below the firmware's and halts.

use super::code::Code;

/// A disk of 1 MiB that starts with the boot sector; `line` has 1 to 79 characters.
pub fn disk(line: &str) -> Vec<u8> {
    let mut code = Code::at(0x7c00);
    code.op(&[0x31, 0xc0, 0x8e, 0xd8]); //         xor ax, ax; mov ds, ax
    code.op(&[0x8e, 0xd0, 0xbc, 0x00, 0x7c]); //   mov ss, ax; mov sp, 0x7c00
    code.op(&[0xfc]).op16(&[0xbe], 0); //          cld; mov si, line
    let text = code.here();
    let next = code.here();
    code.op(&[0xac, 0xb4, 0x0e]); //               next: lodsb; mov ah, 0x0e
    code.op16(&[0xbb], 7).op(&[0xcd, 0x10]); //    mov bx, 7; int 0x10
    code.op(&[0x80, 0x3c, 0x00]); //               cmp byte [si], 0
    code.back(0x75, next); //                      jne next
    code.op(&[0xf4, 0xeb, 0xfd]); //               wait: hlt; jmp wait
    let line_at = code.offset(code.here());
    code.patch_before(text, line_at);
    let mut disk = code.bytes().to_vec();
    disk.extend_from_slice(line.as_bytes());
    assert!(disk.len() < 510 && !line.is_empty(), "a short line");
    disk.resize(510, 0);
    disk.extend_from_slice(&[0x55, 0xaa]);
    disk.resize(1 << 20, 0);
    disk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_lies_where_the_program_looks() {
        let disk = disk("Hello");
        assert_eq!((disk.len(), disk[510], disk[511]), (1 << 20, 0x55, 0xaa));
        let at = usize::from(u16::from_le_bytes([disk[11], disk[12]])) - 0x7c00;
        assert_eq!(&disk[at..at + 6], b"Hello\0");
    }
}
