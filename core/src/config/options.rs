//! The options as they are written, before anything is checked.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// The help on `--keys`: its angle brackets would be tags in a documentation comment.
const KEYS_HELP: &str = "Keys to type, as in '<wait-text:GRUB><down><enter>'";
const KEYS_LONG_HELP: &str = "Keys to type on the guest's keyboard: characters as they are; <enter> \
<esc> <tab> <backspace> <space> <up> <down> <left> <right> <home> <end> <pageup> <pagedown> <insert> \
<delete> <f1> to <f12>; <lt> for <; with ctrl- alt- shift- before a key or a character, as in \
<ctrl-alt-delete>. <wait:SECONDS> waits, <wait-text:STRING> waits until a row of the screen shows STRING \
(in it \\> stands for >)";

/// The options of `trapline run`, as text. The names in a TOML file are those of the command line without the
/// dashes; a value there may be a string or a number, and an option that may be repeated takes a list. Paths
/// are relative to the current directory in both. No other name is accepted.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Options {
    /// A device of the guest, first of all a display adapter: a PCI address of this host, vfio-user:SOCKET, or
    /// none; may be repeated [default: the software adapter]
    ///
    /// A function of this host, as 0000:01:00.0 (also vfio:0000:01:00.0), is bound to vfio-pci first: trapline bind
    /// does it. Functions of one card that are given together stay one card. Without --device the software adapter is
    /// started with the machine, in its own process. Options follow the name, separated by commas; a comma in a name
    /// is written twice.
    ///
    /// vga=on|off|auto: whether it has the legacy VGA addresses. auto: the first that can; on for several: the guest
    /// leads the addresses to one at a time, by COMMAND and VGA Enable.
    ///
    /// rom=FILE|off: another expansion ROM, or none.
    ///
    /// root-port=on|off: behind a PCI Express root port of its own, or on bus 0. Left out: PCI Express functions are
    /// behind one.
    ///
    /// msi=guest|no-msix|no-msi|off: which message signalled interrupts the guest sees: all, MSI alone, MSI-X alone,
    /// or none, so that it uses INTx. For a device whose own do not work.
    ///
    /// phase=auto|legacy|native: what one with legacy VGA is fast at: those addresses, or its BARs, which only then
    /// the guest reaches directly. auto: what the guest uses.
    ///
    /// identity=on|off|refuse|follow|stop: --identity for this device alone.
    ///
    /// gpudirect-clique=N: NVIDIA's adapters with the same N, 0 to 15, are told to reach each other directly.
    ///
    /// arbiter=on|off|auto: whether a burst of accesses to the legacy VGA addresses keeps them from the host's other
    /// adapters for some milliseconds. auto: if there are others.
    #[arg(long, value_name = "DEVICE[,OPTION..]")]
    #[serde(default, deserialize_with = "many")]
    pub device: Vec<String>,

    /// Virtual processors, 1 to 255 [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[serde(default, deserialize_with = "one")]
    pub cpus: Option<String>,

    /// Guest memory in bytes, or with K, M, G or T (powers of 1024) [default: 1G]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    #[serde(default, deserialize_with = "one")]
    pub memory: Option<String>,

    /// RAM in huge pages that the host has set aside [default: whatever pages the kernel gives]
    #[arg(long, value_name = "2M|1G", num_args = 0..=1, default_missing_value = "2M", require_equals = true)]
    #[serde(default, deserialize_with = "one")]
    pub hugepages: Option<String>,

    /// How many bits of a physical address the guest is told, 36 to 52 [default: what processor and IOMMU both have]
    ///
    /// Firmware puts large BARs at the end of what it is told. More than the IOMMU has is for BARs that do not fit
    /// otherwise: functions of this host then do not reach each other's memory.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[serde(default, deserialize_with = "one")]
    pub phys_bits: Option<String>,

    /// How functions of this host are reached: by VFIO groups, by iommufd, or by what is there [default: auto]
    #[arg(long, value_name = "auto|group|iommufd")]
    #[serde(default, deserialize_with = "one")]
    pub vfio: Option<String>,

    /// Whether BARs of functions of this host lie in the guest where the host has them [default: off]
    ///
    /// For adapters that reach their own BARs by mechanisms of their own, with the host's addresses. on, or refuse: a
    /// BAR that the guest moves stays where it is; follow: it moves, with a warning; stop: the machine ends. identity=
    /// of a device says otherwise for that device.
    #[arg(long, value_name = "on|off|refuse|follow|stop")]
    #[serde(default, deserialize_with = "one")]
    pub identity: Option<String>,

    /// The BIOS image [default: the distribution's SeaBIOS]
    #[arg(long, value_name = "FILE")]
    #[serde(default, deserialize_with = "one")]
    pub firmware: Option<String>,

    /// A raw disk image; may be repeated
    ///
    /// With ,readonly the guest is kept from writing to it. A block device that the host uses itself (a mount, a volume)
    /// can be given only so. A comma in the name is written twice.
    #[arg(long, value_name = "FILE[,readonly]")]
    #[serde(default, deserialize_with = "many")]
    pub disk: Vec<String>,

    /// A Linux kernel (bzImage) to boot
    #[arg(long, value_name = "FILE")]
    #[serde(default, deserialize_with = "one")]
    pub kernel: Option<String>,

    /// The kernel's initial RAM disk
    #[arg(long, value_name = "FILE")]
    #[serde(default, deserialize_with = "one")]
    pub initrd: Option<String>,

    /// The kernel's command line
    #[arg(long, value_name = "STRING", allow_hyphen_values = true)]
    #[serde(default, deserialize_with = "one")]
    pub append: Option<String>,

    /// Where the first serial port goes: stdio, none or a file; a pipe must have a reader [default: none]
    #[arg(long, value_name = "stdio|FILE|none")]
    #[serde(default, deserialize_with = "one")]
    pub serial: Option<String>,

    /// A file for what the firmware writes to its debug port; a pipe must have a reader
    #[arg(long, value_name = "FILE")]
    #[serde(default, deserialize_with = "one")]
    pub debugcon: Option<String>,

    /// auto: show the adapter's screen when on a terminal (Ctrl-A x leaves); none: never [default: auto]
    #[arg(long, value_name = "auto|none")]
    #[serde(default, deserialize_with = "one")]
    pub screen: Option<String>,

    /// Write the screen to this PNG file at the end of the run
    #[arg(long, value_name = "FILE.png")]
    #[serde(default, deserialize_with = "one")]
    pub screenshot: Option<String>,

    /// Write the text on the screen to this file (- for standard output) at the end of the run
    #[arg(long, value_name = "FILE|-")]
    #[serde(default, deserialize_with = "one")]
    pub screen_text: Option<String>,

    /// Add to a report, at the end of the run, what was seen to work: JSON, and a page in Markdown beside it
    ///
    /// FILE.json is read first, if it is there, so that several starts are told of together; the page is FILE.md.
    /// No names of hosts, files or users are in it, no serial numbers and no addresses of networks.
    #[arg(long, value_name = "FILE[.json]")]
    #[serde(default, deserialize_with = "one")]
    pub report: Option<String>,

    /// End the run after so many seconds, with exit status 124. Fractions are allowed
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    #[serde(default, deserialize_with = "one")]
    pub timeout: Option<String>,

    /// Who carries out an access to a device: the vCPU, the io_uring worker, or whichever suits [default: adaptive]
    #[arg(long, value_name = "inline|uring|adaptive")]
    #[serde(default, deserialize_with = "one")]
    pub io: Option<String>,

    /// How the legacy VGA window is carried out: each access by itself, writes collected, the text in memory, or
    /// the fastest that KVM has [default: auto]
    ///
    /// strict: each access to 0xa0000-0xbffff reaches the adapter before the guest goes on. coalesced: KVM collects
    /// writes, which reach the adapter in order, merged, before anything that could tell, and within 16 ms. shadowed:
    /// as coalesced, and in a text mode the guest writes to memory, of which the adapter gets what has changed.
    #[arg(long, value_name = "strict|coalesced|shadowed|auto")]
    #[serde(default, deserialize_with = "one")]
    pub window: Option<String>,

    /// Keys to type on the guest's keyboard; see [`Script`](super::Script).
    #[arg(long, value_name = "SCRIPT", allow_hyphen_values = true, help = KEYS_HELP, long_help = KEYS_LONG_HELP)]
    #[serde(default, deserialize_with = "one")]
    pub keys: Option<String>,

    /// Write every access of the guest that traps to this file while it runs
    ///
    /// A name that ends in .json is written for ui.perfetto.dev, any other as the text of Linux' mmiotrace;
    /// ,format=perfetto or ,format=mmiotrace says otherwise. A comma in the name is written twice.
    #[arg(long, value_name = "FILE[,format=perfetto|mmiotrace]")]
    #[serde(default, deserialize_with = "one")]
    pub trace: Option<String>,

    /// Trace only accesses that meet this; may be repeated, and then one is enough
    ///
    /// function=NAME (adapter0, disk0, ...), bar=N, port=A-B and address=A-B (hexadecimal, both ends included);
    /// several, separated by commas, must be met together.
    #[arg(long, value_name = "RULE[,RULE..]")]
    #[serde(default, deserialize_with = "many")]
    pub trace_filter: Vec<String>,

    /// What becomes of a system call that a thread of trapline has no use for [default: on]
    ///
    /// on: the call ends the program, which names the thread and the call; log: it is carried out, and the kernel
    /// logs it; off: there are no filters.
    #[arg(long, value_name = "on|log|off")]
    #[serde(default, deserialize_with = "one")]
    pub seccomp: Option<String>,
}

impl Options {
    /// Reads options from the text of a TOML file.
    ///
    /// # Errors
    ///
    /// One line: the line number and what is wrong there, naming a key that is no option.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .and_then(|span| text.get(..span.start))
                .map_or(String::new(), |before| format!("line {}: ", before.matches('\n').count() + 1));
            let message: Vec<&str> = error.message().split_whitespace().collect();
            format!("{line}{}", message.join(" "))
        })
    }
}

/// The options of `trapline adapter`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct AdapterOptions {
    /// The Unix socket to listen on, or - for a client that is connected to standard input
    #[arg(long, value_name = "PATH")]
    pub socket: PathBuf,

    /// The expansion ROM [default: the distribution's VGA BIOS]
    #[arg(long, value_name = "FILE")]
    pub rom: Option<PathBuf>,

    /// What becomes of a system call that a thread of trapline has no use for [default: on]
    ///
    /// on: the call ends the program, which names the thread and the call; log: it is carried out, and the kernel
    /// logs it; off: there are no filters.
    #[arg(long, value_name = "on|log|off")]
    pub seccomp: Option<String>,
}

/// A TOML string or number as the text of an option.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl Visitor<'_> for TextVisitor {
            type Value = Text;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a number")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

fn one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Text::deserialize(deserializer).map(|text| Some(text.0))
}

fn many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct ManyVisitor;
    impl<'de> Visitor<'de> for ManyVisitor {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a list of strings")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(vec![text.to_owned()])
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
            let mut all = Vec::new();
            while let Some(Text(text)) = list.next_element()? {
                all.push(text);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_any(ManyVisitor)
}
