//! Kernel modules: found in the unpacked kernel package, unpacked themselves, ordered by what they need.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lzma_rust2::XzReader;

/// A module that the kernel can load.
#[derive(Debug)]
pub struct Module {
    /// Its name, with `_` for every `-`.
    pub name: String,
    /// The object file.
    pub object: Vec<u8>,
}

/// The module files of one kernel.
#[derive(Debug)]
pub struct Modules {
    files: BTreeMap<String, PathBuf>,
}

impl Modules {
    /// Looks through `folder`, the kernel's `lib/modules/VERSION/kernel`.
    pub fn find(folder: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries =
                std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
            for entry in entries {
                let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
                let file_name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                } else if let Some((name, _)) = file_name.split_once(".ko") {
                    files.insert(name.replace('-', "_"), entry.path());
                }
            }
        }
        Ok(Modules { files })
    }

    /// The modules `wanted` and all that they need, each after what it needs itself.
    pub fn in_order(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            self.add(name, &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<Module>) -> Result<()> {
        let name = name.replace('-', "_");
        if !seen.insert(name.clone()) {
            return Ok(());
        }
        let Some(file) = self.files.get(&name) else { bail!("the kernel package has no module {name}") };
        let object = unpack(file).with_context(|| format!("cannot unpack {}", file.display()))?;
        for needed in needs(&object) {
            self.add(&needed, seen, order)?;
        }
        order.push(Module { name, object });
        Ok(())
    }
}

fn unpack(file: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(file)?;
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => Ok(bytes),
        Some("xz") => {
            let mut object = Vec::new();
            XzReader::new(bytes.as_slice(), true).read_to_end(&mut object)?;
            Ok(object)
        }
        _ => bail!("only .ko and .ko.xz are known"),
    }
}

/// What the section .modinfo of a module names: `depends=a,b`, once, ended by a zero byte.
fn needs(object: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = object.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let list = object[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, file: &str, needed: &str) {
        let object = format!("ELF\0license=GPL\0depends={needed}\0name=x\0");
        std::fs::write(folder.join(file), object).unwrap();
    }

    #[test]
    fn what_a_module_needs_comes_first_and_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        write(folder.path(), "kvm-amd.ko", "kvm,ccp");
        write(folder.path(), "deep/kvm.ko", "irqbypass");
        write(folder.path(), "ccp.ko", "");
        write(folder.path(), "irqbypass.ko", "");
        let modules = Modules::find(folder.path()).unwrap();
        let order = modules.in_order(&["kvm-amd", "irqbypass"]).unwrap();
        let names: Vec<&str> = order.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["irqbypass", "kvm", "ccp", "kvm_amd"]);
        let error = modules.in_order(&["vfio"]).unwrap_err().to_string();
        assert_eq!(error, "the kernel package has no module vfio");
    }

    #[test]
    fn a_packed_module_is_unpacked() {
        // `printf 'x\0depends=b,c\0' | xz --check=crc32`
        let packed = b"\xfd7zXZ\0\0\x01i\"\xde6\x02\0!\x01\x16\0\0\0t/\xe5\xa3\x01\0\rx\0depends=b,c\0\0\0\0\x85\x99\xd0b\
            \0\x01\"\x0e\x0c\xde\x8c`\x90B\x99\r\x01\0\0\0\0\x01YZ";
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.ko.xz"), packed).unwrap();
        let object = unpack(&folder.path().join("a.ko.xz")).unwrap();
        assert_eq!(object, b"x\0depends=b,c\0");
        assert_eq!(needs(&object), ["b", "c"]);
        std::fs::write(folder.path().join("a.ko.zst"), packed).unwrap();
        assert!(unpack(&folder.path().join("a.ko.zst")).unwrap_err().to_string().contains("only .ko"));
    }
}
