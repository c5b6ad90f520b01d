//! The files that a configuration was read from, as they were just before: how a later look tells that one changed.
//!
//! May use: nothing. A stamp is what the file system knows of a file, so a look costs no reading. It follows symbolic
//! links: where a whole directory is exchanged by turning a link, as Kubernetes does with a ConfigMap or a Secret, the
//! file behind the path is another one.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One file and its stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    path: PathBuf,
    stamp: Stamp,
}

/// What of a file changes with its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamp {
    File {
        device: u64,
        inode: u64,
        bytes: u64,
        /// Seconds and nanoseconds. A program may set it back, as `rsync --times` and `cp -p` do.
        modified: (i64, i64),
        /// The same of the last change of any kind, which no program can set.
        changed: (i64, i64),
    },
    /// A pipe, a directory, a device: it is not compared.
    NoFile,
    Missing,
}

impl Stamped {
    /// The file at this path, as it is now.
    pub fn now(path: &Path) -> Self {
        let stamp = match path.metadata() {
            Ok(found) if found.is_file() => Stamp::File {
                device: found.dev(),
                inode: found.ino(),
                bytes: found.size(),
                modified: (found.mtime(), found.mtime_nsec()),
                changed: (found.ctime(), found.ctime_nsec()),
            },
            Ok(_) => Stamp::NoFile,
            Err(_) => Stamp::Missing,
        };
        Self { path: path.to_owned(), stamp }
    }

    /// The same file as it is now.
    pub fn again(&self) -> Self {
        Self::now(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_that_is_written_replaced_linked_anew_or_gone_has_another_stamp() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("prices.json"), "same length").unwrap();
        }
        symlink("1", at("data")).unwrap();
        symlink("data/prices.json", at("prices.json")).unwrap();
        let path = at("prices.json");
        let mut last = Stamped::now(&path);
        assert_eq!(last, last.again());
        let turn = || {
            symlink("2", at("next")).unwrap();
            fs::rename(at("next"), at("data")).unwrap();
        };
        let replace = || {
            fs::write(at("new"), "same length").unwrap();
            fs::rename(at("new"), &path).unwrap();
        };
        let steps: [(&str, &dyn Fn()); 4] = [
            ("the link to its directory is turned", &turn),
            ("another file is moved over it", &replace),
            ("it is written over", &|| fs::write(&path, "another length").unwrap()),
            ("it is removed", &|| fs::remove_file(&path).unwrap()),
        ];
        for (what, step) in steps {
            step();
            let now = last.again();
            assert_ne!(now, last, "{what}");
            assert_eq!(now, now.again(), "{what}");
            last = now;
        }
    }
}
