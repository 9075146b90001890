//! A boot sector that hands legacy VGA over between two adapters, each behind a root port of its own.
//!
//! They are the first two devices of the machine, so that their addresses are known. The firmware has given the
//! first one legacy VGA and set it up; the second one is set up here, by the first one's BIOS, whose mode 3
//! goes to whoever has the addresses. Then VGA Enable of the ports goes to and fro, and each adapter gets
//! lines of its own with the next letter each time. At last both ports let VGA through, and COMMAND of the
//! adapters says who answers: both, where the first on the bus does, and one alone. What each has then is read back.

use super::code::{self, Code};

/// What it says on the debug console at the end.
pub const DONE: &str = "handed over";

/// What it says before: what is read of both adapters, a letter of each of three lines.
pub const READ_BACK: &str = "JWXj x";

/// How often the addresses go there and back.
const TURNS: u8 = 10;
/// The lines that are filled again and again, from 0, and the first letters of both adapters.
const LINES: std::ops::Range<usize> = 10..16;
const FIRST: [u8; 2] = [b'A', b'a'];
/// The line that is filled while both adapters decode.
const BOTH_LINE: usize = 18;
const BOTH: u8 = b'W';
/// The line that is filled while COMMAND lets one adapter decode alone.
const ALONE_LINE: usize = 20;
const ALONE: [u8; 2] = [b'X', b'x'];

const COLUMNS: usize = 80;
const SHORT_JUMP_BELOW: u8 = 0x72;

/// Bus, device and function 0 of the ports and of the adapters behind them.
const PORTS: [(u32, u32); 2] = [(0, 1), (0, 2)];
const ADAPTERS: [(u32, u32); 2] = [(1, 0), (2, 0)];
/// Bridge Control, with SERR# Enable as the firmware has it, and VGA Enable in bit 3.
const BRIDGE_CONTROL: u32 = 0x3e;
const VGA_ENABLE: u16 = 0x0a;
const VGA_DISABLE: u16 = 0x02;
/// COMMAND, with memory and ports.
const COMMAND: u32 = 0x04;
const DECODE: u16 = 3;

/// An error unless the adapter of this number, 0 or 1, has its own lines on its screen and nothing else.
pub fn shows(screen: &str, number: usize) -> Result<(), String> {
    let lines: Vec<&str> = screen.lines().collect();
    let last = char::from(FIRST[number] + TURNS - 1);
    let full = |letter: char| String::from(letter).repeat(COLUMNS);
    let mut wanted: Vec<(usize, String)> = LINES.map(|line| (line, full(last))).collect();
    let both = if number == 0 { full(char::from(BOTH)) } else { String::new() };
    wanted.extend([(BOTH_LINE, both), (ALONE_LINE, full(char::from(ALONE[number])))]);
    for (line, text) in wanted {
        let found = lines.get(line).copied().unwrap_or_default().trim_end();
        if found != text {
            return Err(format!("line {line} is \"{found}\", not \"{text}\""));
        }
    }
    Ok(())
}

/// A disk of 1 MiB that starts with the boot sector.
pub fn disk() -> Vec<u8> {
    let mut code = Code::at(0x7c00);
    code.begin();
    route(&mut code, 1);
    code.op16(&[0xb8], 3).op(&[0xcd, 0x10]); //        mov ax, 3; int 0x10
    code.op(&[0xb8, 0x00, 0xb8, 0x8e, 0xc0]); //       mov ax, 0xb800; mov es, ax
    code.op(&[0xb3, 0x00]); //                         mov bl, 0
    let again = code.here();
    for (adapter, first) in FIRST.into_iter().enumerate() {
        route(&mut code, adapter);
        code.op(&[0x88, 0xd8, 0x04, first]); //        mov al, bl; add al, first
        fill(&mut code, LINES);
    }
    code.op(&[0x43, 0x80, 0xfb, TURNS]); //            inc bx; cmp bl, TURNS
    code.back(SHORT_JUMP_BELOW, again);
    configure(&mut code, PORTS[0], BRIDGE_CONTROL, VGA_ENABLE);
    code.op(&[0xb0, BOTH]); //                         mov al, letter
    fill(&mut code, BOTH_LINE..BOTH_LINE + 1);
    for (other, adapter) in [(0, 1), (1, 0)] {
        configure(&mut code, ADAPTERS[adapter], COMMAND, DECODE);
        configure(&mut code, ADAPTERS[other], COMMAND, 0);
        code.op(&[0xb0, ALONE[adapter]]);
        fill(&mut code, ALONE_LINE..ALONE_LINE + 1);
    }
    configure(&mut code, ADAPTERS[1], COMMAND, DECODE);
    for adapter in 0..2 {
        route(&mut code, adapter);
        code.op16(&[0xba], 0x402); //                  mov dx, 0x402
        for line in [LINES.start, BOTH_LINE, ALONE_LINE] {
            code.op16(&[0x26, 0xa0], offset(line)).op(&[0xee]); // mov al, es:[line]; out dx, al
        }
    }
    for byte in DONE.bytes() {
        code.op(&[0xb0, byte, 0xee]); //               mov al, byte; out dx, al
    }
    code.op(&[0xfa, 0xf4, 0xeb, 0xfd]); //       wait: cli; hlt; jmp wait
    code::disk(code.bytes())
}

/// Lets one port alone lead legacy VGA behind it.
fn route(code: &mut Code, adapter: usize) {
    configure(code, PORTS[1 - adapter], BRIDGE_CONTROL, VGA_DISABLE);
    configure(code, PORTS[adapter], BRIDGE_CONTROL, VGA_ENABLE);
}

/// Fills lines with the letter in AL; AX, CX and DI are lost.
fn fill(code: &mut Code, lines: std::ops::Range<usize>) {
    code.op(&[0xb4, 0x07]); //                         mov ah, 7
    code.op16(&[0xbf], offset(lines.start)); //        mov di, start
    code.op16(&[0xb9], offset(lines.len()) / 2); //    mov cx, cells
    code.op(&[0xf3, 0xab]); //                         rep stosw
}

/// Where a line begins in the text window.
fn offset(line: usize) -> u16 {
    u16::try_from(line * COLUMNS * 2).expect("a small screen")
}

/// Writes 16 bits of configuration space; EAX and DX are lost.
fn configure(code: &mut Code, (bus, device): (u32, u32), register: u32, value: u16) {
    let address = 1 << 31 | bus << 16 | device << 11 | register & !3;
    code.op(&[0x66, 0xb8]).op(&address.to_le_bytes()); // mov eax, address
    code.op16(&[0xba], 0xcf8).op(&[0x66, 0xef]); //    mov dx, 0xcf8; out dx, eax
    code.op16(&[0xb8], value); //                      mov ax, value
    code.op(&[0xba, 0xfc + (register & 2).to_le_bytes()[0], 0x0c, 0xef]); // mov dx, 0xcfc; out dx, ax
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_disk_that_boots() {
        let disk = disk();
        assert_eq!((disk.len(), disk[510], disk[511]), (1 << 20, 0x55, 0xaa));
    }

    #[test]
    fn only_its_own_lines_count() {
        let screen = |letters: [char; 3]| -> String {
            let full = |letter: char| String::from(letter).repeat(COLUMNS).trim_end().to_owned();
            (0..25)
                .map(|line| match line {
                    10..16 => full(letters[0]) + "\n",
                    18 => full(letters[1]) + "\n",
                    20 => full(letters[2]) + "\n",
                    _ => "\n".into(),
                })
                .collect()
        };
        assert_eq!(shows(&screen(['J', 'W', 'X']), 0), Ok(()));
        assert_eq!(shows(&screen(['j', ' ', 'x']), 1), Ok(()));
        for wrong in [['j', 'W', 'X'], ['J', ' ', 'X'], ['J', 'W', 'x'], ['I', 'W', 'X']] {
            assert!(shows(&screen(wrong), 0).is_err(), "{wrong:?}");
        }
    }
}
