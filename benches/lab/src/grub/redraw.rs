//! A menu that is drawn again and again by keys that it presses itself: before it is drawn, GRUB's script
//! puts them into the BIOS's buffer of keys (15 of them, IBM PC AT Technical Reference, section 5).

use std::path::Path;

use anyhow::Result;

/// What goes to the first serial port when the menu was left, and is about to be drawn once more.
pub const MARK: u8 = b'E';
/// How often the selection moves before the menu is left.
pub const MOVES: usize = 14;

/// In the archive.
const MODULES: [&str; 4] = ["normal", "iorw", "memrw", "test"];
/// The buffer's first and next free place, as offsets from 400h, and where it begins.
const HEAD: u32 = 0x41a;
const TAIL: u32 = 0x41c;
const BUFFER: u32 = 0x41e;
/// Scan codes and characters.
const DOWN: u16 = 0x5000;
const UP: u16 = 0x4800;
const ENTER: u16 = 0x1c0d;

/// The first entry of the menu.
pub const FIRST: &str = "Draw the menu again";

/// Makes the image at `path`. The menu is left `times` times, and then stays.
pub fn make(path: &Path, times: usize) -> Result<()> {
    super::write(path, &super::archive(&MODULES, &configuration(times))?.finish())
}

fn configuration(times: usize) -> String {
    let pairs = [DOWN, UP].into_iter().cycle().take(MOVES).chain([ENTER]);
    let mut keys = format!("  write_word {HEAD} {}\n", BUFFER - 0x400);
    let mut at = BUFFER;
    for key in pairs {
        keys += &format!("  write_word {at} {key}\n");
        at += 2;
    }
    keys += &format!("  write_word {TAIL} {}\n", at - 0x400);
    format!(
        "set timeout=-1\nset default=0\n\
         function keys {{\n{keys}}}\n\
         set drawn=\"\"\n\
         menuentry \"{FIRST}\" {{\n  outb 0x3f8 {MARK}\n  set drawn=\"x$drawn\"\n\
         if [ \"$drawn\" != \"{}\" ]; then\n  keys\n  fi\n}}\n\
         menuentry \"The one below\" {{\n  true\n}}\n\
         keys\n",
        "x".repeat(times)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_fill_the_buffer_and_end_where_they_began() {
        let script = configuration(3);
        assert_eq!(
            script.matches(&format!(" {DOWN}\n")).count(),
            script.matches(&format!(" {UP}\n")).count()
        );
        assert!(script.contains("!= \"xxx\" ]"));
        // 16 places, one of which stays free.
        assert!(script.contains("write_word 1082 7181\n") && script.contains("write_word 1052 60\n"));
    }
}
