//! A boot sector that writes a line below the firmware's and halts.

use super::code::{self, Code};

/// A disk of 1 MiB that starts with the boot sector; `line` has 1 to 79 characters.
pub fn disk(line: &str) -> Vec<u8> {
    let mut code = Code::at(0x7c00);
    let text = code.begin().print_line();
    code.op(&[0xf4, 0xeb, 0xfd]); //               wait: hlt; jmp wait
    let line_at = code.offset(code.here());
    code.patch_before(text, line_at);
    let boot = [code.bytes(), line.as_bytes()].concat();
    assert!(boot.len() < 510 && !line.is_empty(), "a short line");
    code::disk(&boot)
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
