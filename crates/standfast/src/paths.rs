//! Where the files of a node are, given its data directory.
//!
//! **Invariant:** a node's own files lie outside of its data directory, and every command finds them by the data
//! directory's path alone, relative or absolute.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// A Unix socket's path may have 107 bytes; below a state directory stands `postgres/socket/.s.PGSQL.65535`.
const STATE_DIR_BYTES_MAX: usize = 107 - "/postgres/socket/.s.PGSQL.65535".len();

/// The user's directories for configuration and state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Homes {
    pub(crate) config: PathBuf,
    pub(crate) state: PathBuf,
}

impl Homes {
    /// By the XDG rules; without a home, `/var/lib/standfast`.
    pub(crate) fn from_env() -> Self {
        Self::resolve(|name| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        })
    }

    /// Those of another user, who keeps some variables of the environment.
    pub(crate) fn of(home: &Path, keeps: impl Fn(&str) -> bool) -> Self {
        let given = |name: &str| env::var_os(name).map(PathBuf::from);
        Self::resolve(|name| match name {
            "HOME" => Some(home.to_owned()),
            _ if keeps(name) => given(name).filter(|path| path.is_absolute()),
            _ => None,
        })
    }

    fn resolve(var: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let home = var("HOME").filter(|home| home != Path::new("/") && home.is_dir());
        let below = |variable: &str, usual: &str| {
            var(variable).or_else(|| home.as_ref().map(|home| home.join(usual)))
        };
        let config = below("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("standfast"));
        let state = below("XDG_DATA_HOME", ".local/share").map(|dir| dir.join("standfast"));
        Self {
            config: config.unwrap_or_else(|| "/var/lib/standfast/config".into()),
            state: state.unwrap_or_else(|| "/var/lib/standfast".into()),
        }
    }

    /// The configuration file that `create` writes for a data directory.
    pub(crate) fn config_file(&self, pgdata: &Path) -> PathBuf {
        below(&self.config, pgdata).join("standfast.yml")
    }

    /// The state directory of a node; shortened to a digest where a socket's path would become too long.
    pub(crate) fn state_dir(&self, pgdata: &Path) -> PathBuf {
        let plain = below(&self.state, pgdata);
        if plain.as_os_str().len() <= STATE_DIR_BYTES_MAX {
            return plain;
        }
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(pgdata.as_os_str().as_bytes());
        let name: String = digest[..6]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.state.join(name)
    }

    /// The cluster secret's usual place.
    pub(crate) fn secret_file(&self) -> PathBuf {
        self.config.join("secret")
    }
}

fn below(root: &Path, pgdata: &Path) -> PathBuf {
    let parts = pgdata.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    root.iter().chain(parts).map(OsStr::new).collect()
}

/// The one absolute path of a directory, the same before it exists and after: what exists of it is followed through
/// symbolic links, and in the rest `..` takes back the word before it.
pub(crate) fn absolute(path: &Path) -> io::Result<PathBuf> {
    let full = std::path::absolute(path)?;
    let words: Vec<Component<'_>> = full.components().collect();
    for known in (1..=words.len()).rev() {
        let (present, rest) = words.split_at(known);
        let Ok(mut real) = present.iter().collect::<PathBuf>().canonicalize() else {
            continue;
        };
        for word in rest {
            match word {
                Component::ParentDir => drop(real.pop()),
                other => real.push(other),
            }
        }
        return Ok(real);
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn homes(vars: &[(&str, &str)]) -> Homes {
        let find = |name: &str| {
            vars.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.into())
        };
        Homes::resolve(find)
    }

    #[test]
    fn homes_follow_xdg() {
        let both = homes(&[
            ("HOME", "/tmp"),
            ("XDG_CONFIG_HOME", "/c"),
            ("XDG_DATA_HOME", "/d"),
        ]);
        assert_eq!(
            both,
            Homes {
                config: "/c/standfast".into(),
                state: "/d/standfast".into()
            }
        );
        let home = homes(&[("HOME", "/tmp")]);
        assert_eq!(home.config, Path::new("/tmp/.config/standfast"));
        assert_eq!(home.state, Path::new("/tmp/.local/share/standfast"));
        assert_eq!(homes(&[]).state, Path::new("/var/lib/standfast"));
    }

    #[test]
    fn files_are_found_by_the_data_directory() {
        let homes = homes(&[("HOME", "/tmp")]);
        let file = homes.config_file(Path::new("/mnt/node_a/data"));
        assert_eq!(
            file,
            Path::new("/tmp/.config/standfast/mnt/node_a/data/standfast.yml")
        );
        let state = homes.state_dir(Path::new("/mnt/node_a/data"));
        assert_eq!(
            state,
            Path::new("/tmp/.local/share/standfast/mnt/node_a/data")
        );
    }

    #[test]
    fn a_long_path_still_leaves_room_for_a_socket() {
        let homes = homes(&[("HOME", "/tmp")]);
        let long = PathBuf::from(format!("/{}", "x".repeat(200)));
        let state = homes.state_dir(&long);
        assert!(state.as_os_str().len() <= STATE_DIR_BYTES_MAX, "{state:?}");
        assert_ne!(state, homes.state_dir(&long.join("y")));
    }

    #[test]
    fn relative_and_linked_paths_are_one_path() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        assert_eq!(
            absolute(&dir.path().join("link/new")).unwrap(),
            real.join("new")
        );
        assert_eq!(absolute(&dir.path().join("link")).unwrap(), real);
        // The kernel's `..`: above the directory that the link leads to.
        assert_eq!(
            absolute(&dir.path().join("link/../other/new")).unwrap(),
            real.with_file_name("other").join("new")
        );
    }

    #[test]
    fn a_path_is_the_same_before_it_exists_and_after() {
        let dir = tempfile::tempdir().unwrap();
        let above = dir.path().canonicalize().unwrap();
        std::fs::create_dir(above.join("real")).unwrap();
        std::os::unix::fs::symlink(above.join("real"), above.join("link")).unwrap();
        for (typed, meant) in [
            ("a_x/../a_y/./z", "a_y/z"),
            ("link/new1/new2", "real/new1/new2"),
            ("link/b/../../c/d", "c/d"),
        ] {
            assert_eq!(
                absolute(&above.join(typed)).unwrap(),
                above.join(meant),
                "{typed}"
            );
        }
        for typed in ["link/new1/new2", "link/new1/../new3"] {
            let typed = above.join(typed);
            let before = absolute(&typed).unwrap();
            std::fs::create_dir_all(&before).unwrap();
            assert_eq!(absolute(&typed).unwrap(), before);
        }
    }
}
