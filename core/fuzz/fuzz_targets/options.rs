//! The text of each option, from the command line and from a file at once.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use trapline::config::{MEMORY_LARGEST, MEMORY_LEAST, Options, Origin, RunConfig};

#[derive(Arbitrary, Debug)]
struct Texts {
    lists: [Vec<String>; 2],
    devices: Vec<(u8, String)>,
    sizes: [Option<(u64, String)>; 2],
    single: [Option<String>; 16],
}

impl From<Texts> for Options {
    fn from(texts: Texts) -> Options {
        let [mut device, disk] = texts.lists;
        for (kind, text) in texts.devices {
            let before = ["vfio-user:", "vfio-user:a,", "01:00.0,vga=", "vfio:", "vfio-user:a,rom=", ""];
            device.push(format!("{}{text}", before[usize::from(kind) % before.len()]));
        }
        let [memory, cpus] = texts.sizes.map(|size| size.map(|(number, unit)| format!("{number}{unit}")));
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = texts.single;
        Options {
            device,
            disk,
            memory: memory.or(m),
            cpus: cpus.or(n),
            firmware: a,
            kernel: b,
            initrd: c,
            append: d,
            serial: e,
            debugcon: f,
            screen: g,
            screenshot: h,
            screen_text: i,
            timeout: j,
            io: k,
            window: l,
            hugepages: o,
            vfio: p,
            keys: None,
        }
    }
}

fuzz_target!(|texts: (Texts, Option<Texts>)| {
    let file = texts.1.map(|file| (Origin::File("f.toml".into()), file.into()));
    match RunConfig::new(texts.0.into(), file) {
        Ok(config) => {
            assert!((MEMORY_LEAST..=MEMORY_LARGEST).contains(&config.memory));
            assert_eq!(config.memory % (1 << 20), 0);
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
});
