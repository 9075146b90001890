//! The text of each option, from the command line and from a file at once.

use arbitrary::Arbitrary;
use trapline::config::{MEMORY_LARGEST, MEMORY_LEAST, Options, Origin, RunConfig};

#[derive(Arbitrary, Debug)]
struct Texts {
    lists: [Vec<String>; 2],
    devices: Vec<(u8, String)>,
    filters: Vec<String>,
    identity: Option<String>,
    sizes: [Option<(u64, String)>; 2],
    single: [Option<String>; 20],
}

impl From<Texts> for Options {
    fn from(texts: Texts) -> Options {
        let [mut device, disk] = texts.lists;
        for (kind, text) in texts.devices {
            let before = ["vfio-user:", "vfio-user:a,", "01:00.0,vga=", "vfio:", "vfio-user:a,rom=", ""];
            device.push(format!("{}{text}", before[usize::from(kind) % before.len()]));
        }
        let [memory, cpus] = texts.sizes.map(|size| size.map(|(number, unit)| format!("{number}{unit}")));
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t] = texts.single;
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
            trace: r,
            seccomp: s,
            trace_filter: texts.filters,
            phys_bits: q,
            identity: texts.identity,
            report: t,
            // The language of keys has a target of its own.
            ..Options::default()
        }
    }
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(texts) = super::input::<(Texts, Option<Texts>)>(data) else { return };
    let file = texts.1.map(|file| (Origin::File("f.toml".into()), file.into()));
    match RunConfig::new(texts.0.into(), file) {
        Ok(config) => {
            assert!((MEMORY_LEAST..=MEMORY_LARGEST).contains(&config.memory));
            assert_eq!(config.memory % (1 << 20), 0);
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
}
