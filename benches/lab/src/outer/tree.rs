//! The unpacked packages: a second QEMU and a kernel that are not installed on this machine.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::modules::Modules;
use super::packages;

/// Where shared libraries lie in packages of Debian and Ubuntu, before and after the merge of /usr.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
/// Where QEMU's firmware and option ROMs lie.
const DATA: [&str; 3] = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];

/// A folder with the contents of packages. What is in it can be used on the host and, at the same path,
/// in the outer machine.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Takes what is below `lab`, and fetches it first where it is missing. Two at a time wait for each
    /// other.
    pub fn prepare(lab: &Path) -> Result<Self> {
        let lock = lab.join("outer.lock");
        let lock = File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
        lock.lock().context("cannot wait for another lab that unpacks packages")?;
        let root = std::path::absolute(lab.join("outer")).context("there is no current folder")?;
        if !root.exists() {
            packages::unpack(&lab.join("outer-packages"), &root)?;
        }
        let tree = Tree { root };
        tree.first(&["usr/bin/qemu-system-x86_64"])?;
        Ok(tree)
    }

    /// QEMU, as the words that start it anywhere where this tree is seen.
    pub fn qemu(&self) -> Result<Vec<OsString>> {
        let loader = self.first(&LIBRARIES.map(|folder| format!("{folder}/ld-linux-x86-64.so.2")))?;
        let mut libraries = OsString::new();
        for folder in LIBRARIES {
            libraries.push(self.root.join(folder));
            libraries.push(":");
        }
        let mut modules = OsString::from("QEMU_MODULE_DIR=");
        modules.push(self.root.join("usr/lib/x86_64-linux-gnu/qemu"));
        let program = self.root.join("usr/bin/qemu-system-x86_64");
        let mut words = vec!["env".into(), modules, loader.into(), "--library-path".into(), libraries];
        words.push(program.into());
        for folder in DATA {
            words.push("-L".into());
            words.push(self.root.join(folder).into());
        }
        Ok(words)
    }

    /// The kernel, a bzImage.
    pub fn kernel(&self) -> Result<PathBuf> {
        only_entry(&self.root.join("boot"), "vmlinuz-")
    }

    /// The kernel's modules.
    pub fn modules(&self) -> Result<Modules> {
        let folder = self.first(&["lib/modules", "usr/lib/modules"])?;
        Modules::find(&only_entry(&folder, "")?.join("kernel"))
    }

    /// A busybox that needs no libraries.
    pub fn busybox(&self) -> Result<PathBuf> {
        self.first(&["bin/busybox", "usr/bin/busybox"])
    }

    /// An adapter's ROM, by the name of its file, as `vgabios-stdvga.bin`.
    pub fn rom(&self, name: &str) -> Result<PathBuf> {
        self.first(&DATA.map(|folder| format!("{folder}/{name}")))
    }

    /// The first of these that is there.
    fn first<S: AsRef<str>>(&self, names: &[S]) -> Result<PathBuf> {
        let found = names.iter().map(|name| self.root.join(name.as_ref())).find(|path| path.exists());
        let wanted = names.first().map_or("", |name| name.as_ref());
        let root = self.root.display();
        found.with_context(|| format!("{root} has no {wanted}: remove the folder, and it is made again"))
    }
}

/// The only entry of a folder with this start of its name.
fn only_entry(folder: &Path, start: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(start))
        .map(|entry| entry.path())
        .collect();
    ensure!(found.len() == 1, "{} has {} entries {start}*, not one", folder.display(), found.len());
    Ok(found.remove(0))
}
