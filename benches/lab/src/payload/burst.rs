//! A boot sector that fills lines of the text screen without end, and resets the machine when it is told to.
//!
//! Below the firmware's text it writes a line by int 10h; then the lines 13 to 24 are written to the window
//! again and again, each time with the next of 16 letters. The byte [`RESET`] on the serial line resets
//! the machine in the middle of that. Of two guests that never rest and take interrupts one is lost by QEMU's
//! translator, which nests them: in the BIOS's handler of the timer its code segment becomes that of its stack.
//! So with [`Pace::Ticks`] it waits for the timer each time, and with [`Pace::Counted`] it takes no interrupts.

use super::code::{self, Code};

/// What is written to the debug console behind each fill that is counted.
pub const FILLED: char = '#';
/// Resets the machine.
pub const RESET: u8 = b'r';
/// The lines that are filled, from 0.
const LINES: std::ops::Range<usize> = 12..24;
/// How many letters there are.
const LETTERS: u8 = 16;

const SHORT_JUMP_ZERO: u8 = 0x74;
const SHORT_JUMP_NOT_ZERO: u8 = 0x75;
/// Their cells, and where the first one is.
const CELLS: u16 = 12 * 80;
const START: u16 = 12 * 160;

/// How fast the lines are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as it can be.
    Endless,
    /// As fast as it can be without interrupts, and counted: with a [`FILLED`] on the debug console each time.
    Counted,
    /// Once in 55 ms.
    Ticks,
}

/// The letters in the lines that are filled, if there are no others than 16 from `first` on.
pub fn letters(screen: &str, first: u8) -> Option<Vec<u8>> {
    let lines: Vec<&str> = screen.lines().skip(LINES.start).take(LINES.len()).collect();
    let letters = lines.concat().into_bytes();
    let is_whole = lines.len() == LINES.len() && lines.iter().all(|line| line.len() == 80);
    (is_whole && letters.iter().all(|letter| (first..first + LETTERS).contains(letter))).then_some(letters)
}

/// A disk of 1 MiB that starts with the boot sector; `line` has 1 to 79 characters, `first` is the first letter.
pub fn disk(line: &str, first: u8, pace: Pace) -> Vec<u8> {
    let mut code = Code::at(0x7c00);
    let text = code.begin().print_line();
    code.op(&[0xb8, 0x00, 0xb8, 0x8e, 0xc0]); //       mov ax, 0xb800; mov es, ax
    code.op(&[0xb3, 0x00]); //                         mov bl, 0
    if pace == Pace::Counted {
        code.op(&[0xfa]); //                           cli
    }
    let again = code.here();
    if pace == Pace::Ticks {
        code.op(&[0xfb, 0xf4]); //                     sti; hlt
    }
    code.op(&[0x88, 0xd8, 0x04, first, 0xb4, 0x07]); // again: mov al, bl; add al, first; mov ah, 7
    code.op16(&[0xbf], START).op16(&[0xb9], CELLS); // mov di; mov cx
    code.op(&[0xf3, 0xab]); //                         rep stosw
    if pace == Pace::Counted {
        code.op16(&[0xba], 0x402); //                  mov dx, 0x402
        code.op(&[0xb0, FILLED as u8, 0xee]); //       mov al, FILLED; out dx, al
    }
    code.op(&[0x43, 0x80, 0xe3, LETTERS - 1]); //      inc bx; and bl, 15
    code.op16(&[0xba], 0x3fd); //                      mov dx, 0x3fd
    code.op(&[0xec, 0xa8, 0x01]); //                   in al, dx; test al, 1
    code.back(SHORT_JUMP_ZERO, again);
    code.op16(&[0xba], 0x3f8); //                      mov dx, 0x3f8
    code.op(&[0xec, 0x3c, RESET]); //                  in al, dx; cmp al, RESET
    code.back(SHORT_JUMP_NOT_ZERO, again);
    code.op16(&[0xba], 0xcf9).op(&[0xb0, 0x06, 0xee]); // mov dx, 0xcf9; mov al, 6; out dx, al
    code.op(&[0xfa, 0xf4, 0xeb, 0xfd]); //       wait: cli; hlt; jmp wait
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
        let disk = disk("Hello", b'a', Pace::Endless);
        assert_eq!((disk.len(), disk[510], disk[511]), (1 << 20, 0x55, 0xaa));
        let at = usize::from(u16::from_le_bytes([disk[11], disk[12]])) - 0x7c00;
        assert_eq!(&disk[at..at + 6], b"Hello\0");
    }

    #[test]
    fn only_whole_lines_of_its_letters_count() {
        let screen = |letter: char| {
            let full = String::from(letter).repeat(80);
            (0..25)
                .map(|line| if LINES.contains(&line) { format!("{full}\n") } else { "\n".into() })
                .collect()
        };
        let (mut good, other): (String, String) = (screen('c'), screen('q'));
        assert_eq!(letters(&good, b'a'), Some(vec![b'c'; usize::from(CELLS)]));
        assert_eq!(letters(&other, b'a'), None);
        good.insert(good.find('c').unwrap(), 'd');
        assert_eq!(letters(&good, b'a'), None);
    }
}
