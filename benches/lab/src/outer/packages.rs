//! The distribution's packages for the outer machine, unpacked into a folder of their own.
//!
//! Nothing is installed and nothing of the machine's apt is changed: apt runs with the machine's
//! configuration (proxies, credentials), but with lists, caches and sources below the laboratory's folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::sources::{Release, Source};

/// What is asked for by name, besides the kernel.
const ASKED: [&str; 3] = ["qemu-system-x86", "seabios", "busybox-static"];
/// What of all that those need is taken, by the start of its name. The rest, which makes an initramfs or
/// runs services, is for a system that boots.
const TAKEN: [&str; 8] = [
    "qemu-system-",
    "seabios",
    "ipxe-qemu",
    "busybox-static",
    "linux-image-",
    "linux-modules-",
    "lib",
    "zlib1g",
];
/// The oldest QEMU and the oldest Linux that will do.
const OLDEST: [(&str, Version); 2] = [("QEMU", (10, 0)), ("Linux", (6, 12))];

/// The first two numbers of a version.
type Version = (u32, u32);

/// Downloads the packages and unpacks them to `root`, which exists afterwards only if all went well.
///
/// Blocks for a download of about 150 MB. What lies about meanwhile is in `folder`.
pub fn unpack(folder: &Path, root: &Path) -> Result<()> {
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "there is no apt-get: the outer machine is made of packages of Debian or Ubuntu"
    );
    let release = Release::find(Path::new("/"))?;
    remove(folder)?;
    eprintln!("The packages for the outer machine are fetched once, about 150 MB; nothing is installed.");
    let apt = Apt::with_new_enough(folder.to_owned(), &release)?;
    let packages = apt.plan()?;
    let (count, suite) = (packages.len(), apt.suite());
    eprintln!("{count} packages of {suite} go to {}", root.display());
    let files = apt.download(&packages)?;
    let unfinished = root.with_extension("unfinished");
    remove(&unfinished)?;
    make(&unfinished)?;
    for file in &files {
        let mut command = Command::new("dpkg-deb");
        command.arg("-x").arg(file).arg(&unfinished);
        output(command).with_context(|| format!("cannot unpack {}", file.display()))?;
    }
    std::fs::rename(&unfinished, root).with_context(|| format!("cannot make {}", root.display()))?;
    remove(folder)
}

/// An apt with a state of its own, in which nothing is installed.
struct Apt {
    folder: PathBuf,
    source: Source,
    kernel: &'static str,
}

impl Apt {
    /// The release itself where it is new enough, with its backports where it is not.
    fn with_new_enough(folder: PathBuf, release: &Release) -> Result<Self> {
        let kernel = if release.id == "ubuntu" { "linux-image-generic" } else { "linux-image-amd64" };
        let mut apt = Apt { folder, source: release.source.clone(), kernel };
        apt.update()?;
        let Some(old) = apt.too_old()? else { return Ok(apt) };
        let backports = format!("{}-backports", release.codename);
        apt.source.suites.push(backports.clone());
        apt.update().with_context(|| format!("{old}, and there is no {backports}"))?;
        match apt.too_old()? {
            Some(old) => bail!("{old}, also with {backports}"),
            None => Ok(apt),
        }
    }

    /// The suite whose packages are preferred.
    fn suite(&self) -> &str {
        self.source.suites.last().map_or("", String::as_str)
    }

    /// Writes the configuration and fetches the lists of packages.
    fn update(&self) -> Result<()> {
        for folder in ["state/lists/partial", "cache/archives/partial", "packages"] {
            make(&self.folder.join(folder))?;
        }
        write(&self.folder.join("status"), "")?;
        write(&self.folder.join("lab.sources"), &stanza(&self.source))?;
        write(&self.folder.join("apt.conf"), &configuration(&self.folder, self.suite()))?;
        let mut command = self.command("apt-get");
        // Otherwise a list that cannot be fetched is a warning, and the old one is kept.
        command.args(["--error-on=any", "update"]);
        output(command).context("cannot fetch the lists of packages: is there a network?")?;
        Ok(())
    }

    /// What is too old, in words.
    fn too_old(&self) -> Result<Option<String>> {
        for ((what, oldest), package) in OLDEST.iter().zip([ASKED[0], self.kernel]) {
            let mut command = self.command("apt-cache");
            command.args(["policy", package]);
            let policy = output(command)?;
            let (major, minor) = oldest;
            match candidate(&policy) {
                Some(version) if version >= *oldest => {}
                Some((has, part)) => {
                    let suite = self.suite();
                    return Ok(Some(format!("{what} {major}.{minor} is needed, {suite} has {has}.{part}")));
                }
                None => return Ok(Some(format!("{} has no package {package}", self.suite()))),
            }
        }
        Ok(None)
    }

    /// The names of the packages to be unpacked.
    fn plan(&self) -> Result<Vec<String>> {
        let mut command = self.command("apt-get");
        command
            .args(["--yes", "--no-install-recommends", "--print-uris", "install", self.kernel])
            .args(ASKED);
        let plan = output(command).context("the packages do not fit together")?;
        let packages = taken(&plan);
        ensure!(packages.len() > ASKED.len(), "apt-get names no packages to unpack: {}", plan.trim());
        Ok(packages)
    }

    fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("packages");
        let mut command = self.command("apt-get");
        command.arg("download").args(packages).current_dir(&folder);
        output(command).context("cannot download the packages")?;
        let mut files = Vec::new();
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
        {
            files.push(entry.with_context(|| format!("cannot read {}", folder.display()))?.path());
        }
        Ok(files)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--config-file").arg(self.folder.join("apt.conf")).arg("--quiet=2");
        command.env("LC_ALL", "C");
        command
    }
}

/// What apt is to do otherwise than on this machine; read after the machine's own configuration.
fn configuration(folder: &Path, suite: &str) -> String {
    let folder = folder.display();
    format!(
        "Dir::State \"{folder}/state\";\n\
         Dir::State::status \"{folder}/status\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         Dir::Etc::SourceList \"{folder}/lab.sources\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\n\
         Dir::Etc::Preferences \"/dev/null\";\n\
         Dir::Etc::PreferencesParts \"/dev/null\";\n\
         APT::Default-Release \"{suite}\";\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         #clear APT::Update;\n"
    )
}

/// The source as deb822, for nothing but the lists of packages.
fn stanza(source: &Source) -> String {
    let Source { uri, suites, components, signed_by } = source;
    let (suites, components) = (suites.join(" "), components.join(" "));
    let signed_by = signed_by.as_ref().map(|by| format!("Signed-By: {by}\n")).unwrap_or_default();
    format!(
        "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: {components}\nArchitectures: amd64\n\
         Targets: Packages\n{signed_by}"
    )
}

/// The first two numbers of the version that `apt-cache policy` would install.
fn candidate(policy: &str) -> Option<Version> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    let version = version.split_once(':').map_or(version, |(_epoch, version)| version);
    let mut numbers = version.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The packages of lines like `'http://mirror/x_1_amd64.deb' x_1_amd64.deb 123 SHA256:...`.
fn taken(plan: &str) -> Vec<String> {
    plan.lines()
        .filter_map(|line| line.strip_prefix('\'')?.split_once("' ")?.1.split_once('_'))
        .map(|(name, _)| name.to_owned())
        .filter(|name| TAKEN.iter().any(|start| name.starts_with(start)))
        .collect()
}

/// Runs a command; an error is the first line that it complains with.
fn output(mut command: Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let complaint = errors.lines().find(|line| line.starts_with("E: ")).or(errors.lines().next());
        bail!("{program}: {}", complaint.unwrap_or("it failed and says nothing").trim_start_matches("E: "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn make(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Removes a folder, which need not be there.
fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_read_without_its_epoch() {
        let policy = "qemu-system-x86:\n  Installed: (none)\n  Candidate: 1:10.0.2+ds-2~bpo12+1\n";
        assert_eq!(candidate(policy), Some((10, 0)));
        assert_eq!(candidate("x:\n  Candidate: 6.12.95-1\n"), Some((6, 12)));
        assert_eq!(candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate(""), None);
    }

    #[test]
    fn libraries_are_taken_and_services_are_not() {
        let plan = "'http://m/libc6_2.36_amd64.deb' libc6_2.36_amd64.deb 2759320 SHA256:00\n\
                    'http://m/systemd_254_amd64.deb' systemd_254_amd64.deb 1 SHA256:00\n\
                    'http://m/q.deb' qemu-system-x86_1%3a10.0.2_amd64.deb 1 SHA256:00\n\
                    Some other line\n";
        assert_eq!(taken(plan), ["libc6", "qemu-system-x86"]);
    }

    #[test]
    fn the_stanza_keeps_a_key_of_several_lines() {
        let source = Source {
            uri: "http://mirror.example/debian".into(),
            suites: vec!["a".into(), "a-backports".into()],
            components: vec!["main".into()],
            signed_by: Some("\n -----BEGIN\n .\n abc".into()),
        };
        let text = stanza(&source);
        assert!(text.contains("\nSuites: a a-backports\n"), "{text}");
        assert!(text.ends_with("\nSigned-By: \n -----BEGIN\n .\n abc\n"), "{text}");
    }

    #[test]
    fn an_error_is_the_first_complaint() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo W: odd >&2; echo E: no such thing >&2; exit 100"]);
        assert_eq!(output(command).unwrap_err().to_string(), "sh: no such thing");
    }
}
