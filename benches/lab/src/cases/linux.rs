//! A kernel through SeaBIOS' option ROM, shown with the smallest one.

use anyhow::{Result, ensure};

use super::{Bench, Case};
use crate::payload::kernel;

pub const CASES: &[Case] = &[Case {
    name: "linux: a kernel gets its command line and its ram disk",
    seconds: 60,
    kvm: true,
    run: boot,
}];

fn boot(bench: &Bench) -> Result<()> {
    bench.write("kernel.img", &kernel::image())?;
    let contents = "seven dwarfs";
    let mut disk = contents.as_bytes().to_vec();
    disk.resize(5000, 0);
    bench.write("initrd.img", &disk)?;
    let arguments = ["--kernel", "kernel.img", "--initrd", "initrd.img", "--append", "quiet colour=blue"];
    bench.machine(&arguments)?.wait()?.expect(0)?;
    let screen = bench.screen();
    for line in [kernel::GREETING, "command line: quiet colour=blue", "ram disk: seven dwarfs"] {
        ensure!(screen.contains(line), "no \"{line}\" on the screen");
    }
    Ok(())
}
