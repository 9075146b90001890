//! Where a report goes.

use std::path::PathBuf;

use super::device;

/// The two files of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportFiles {
    /// For programs, and for the next run: read, added to, replaced as a whole.
    pub json: PathBuf,
    /// For people.
    pub markdown: PathBuf,
}

/// Parses the name of either file, or of both without what follows the dot.
pub(super) fn files(text: &str) -> Result<ReportFiles, String> {
    let path = device::path(text, "the file is not named")?;
    let stem = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json" | "md") => path.with_extension(""),
        _ => path,
    };
    let Some(name) = stem.file_name().map(|name| name.to_string_lossy().into_owned()) else {
        return Err("this names no file".into());
    };
    let named = |extension: &str| stem.with_file_name(format!("{name}.{extension}"));
    Ok(ReportFiles { json: named("json"), markdown: named("md") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_have_one_name() {
        for text in ["/a/b", "/a/b.json", "/a/b.md"] {
            let files = files(text).unwrap();
            let paths = (files.json.to_str().unwrap(), files.markdown.to_str().unwrap());
            assert_eq!(paths, ("/a/b.json", "/a/b.md"), "{text}");
        }
        assert_eq!(files("v1.2").unwrap().json, PathBuf::from("v1.2.json"));
        for text in ["", "/", "..", "a/.."] {
            assert!(files(text).is_err(), "{text}");
        }
    }
}
