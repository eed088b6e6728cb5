//! Directories and disks that can't be used, and how that is told.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a helper fails as its test does; figures are for whoever reads the output"
)]

mod support;

use postgres::{Binaries, DataDir, Instance, PostgresError, Stop};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use support::{LONG, Node, run, run_as_postgres};

const DISK: &str = "STANDFAST_TEST_SMALL_DISK";

#[test]
fn directories_that_are_not_ours_are_told_apart() {
    run("directories_that_are_not_ours_are_told_apart", async {
        let node = Node::new("a");
        let data_dir = &node.options.data_dir;
        let why = |wanted: &str| match node.instance.data_dir().unwrap() {
            DataDir::Unusable { why } => assert!(why.contains(wanted), "{why}"),
            other => panic!("{other:?} instead of {wanted}"),
        };
        std::os::unix::fs::symlink("/tmp", data_dir).unwrap();
        why("symbolic link");
        std::fs::remove_file(data_dir).unwrap();
        std::fs::write(data_dir, "").unwrap();
        why("not a directory");
        std::fs::remove_file(data_dir).unwrap();
        std::fs::create_dir(data_dir).unwrap();
        assert_eq!(node.instance.data_dir().unwrap(), DataDir::Empty);
        std::fs::write(data_dir.join("PG_VERSION"), "9.6\n").unwrap();
        why("9.6");
        // Found out when it is opened, with both versions in the error.
        std::fs::write(data_dir.join("PG_VERSION"), "11\n").unwrap();
        let error = Instance::open(node.options.clone()).unwrap_err();
        assert!(
            matches!(error, PostgresError::WrongMajor { data_major: 11, .. }),
            "{error}"
        );
        let major = node.instance.binaries().major;
        std::fs::write(data_dir.join("PG_VERSION"), format!("{major}\n")).unwrap();
        std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        why("mode");
        std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700)).unwrap();
        why("control file");
        let started = node.instance.start_standby(None, LONG).await;
        assert!(
            matches!(started, Err(PostgresError::Unusable { .. })),
            "{started:?}"
        );

        let mut options = node.options.clone();
        options.data_dir = "/".into();
        assert!(Instance::open(options).is_err());
        let mut options = node.options.clone();
        options.data_dir = "/usr".into();
        let other = Instance::open(options).unwrap();
        assert!(matches!(
            other.data_dir().unwrap(),
            DataDir::Unusable { .. }
        ));
    });
}

#[test]
fn options_that_could_not_work_are_refused() {
    run("options_that_could_not_work_are_refused", async {
        let node = Node::new("a");
        let refused = |change: &dyn Fn(&mut postgres::Options)| {
            let mut options = node.options.clone();
            change(&mut options);
            let error = Instance::open(options).unwrap_err();
            assert!(matches!(error, PostgresError::Option { .. }), "{error}");
        };
        refused(&|options| options.data_dir = "data".into());
        refused(&|options| options.state_dir = options.data_dir.join("state"));
        refused(&|options| options.port = 0);
        refused(&|options| options.superuser.user = "a\"b".to_owned());
        refused(&|options| options.replication.password = "a\nb".to_owned().into());
        refused(&|options| {
            options
                .pg_hba
                .push("local all all trust\nhost all".to_owned())
        });
        let mut options = node.options.clone();
        options.bin_dir = Some("/tmp".into());
        let error = Instance::open(options).unwrap_err();
        assert!(matches!(error, PostgresError::NoPrograms { .. }), "{error}");
        assert!(Binaries::find(None, None).unwrap().major >= 13);
    });
}

#[test]
fn a_start_that_fails_says_why() {
    run("a_start_that_fails_says_why", async {
        let node = Node::new("a");
        node.instance.init().await.unwrap();
        let mut parameters = node.options.parameters.clone();
        // A value that is none would be left out; this is found when it is too late.
        let missing = "no_such_library".to_owned();
        parameters.insert("shared_preload_libraries".to_owned(), missing);
        node.instance
            .configure(parameters, Vec::new(), Vec::new())
            .await
            .unwrap();
        let error = node.instance.start_standby(None, LONG).await.unwrap_err();
        let PostgresError::Ended { log } = &error else {
            panic!("{error}")
        };
        assert!(log.contains("no_such_library"), "{log}");
        assert!(!error.is_storage() && !error.is_retryable());
        // Nothing is in the way of the next try.
        node.instance
            .configure(node.options.parameters.clone(), Vec::new(), Vec::new())
            .await
            .unwrap();
        node.instance.start_standby(None, LONG).await.unwrap();
        node.stop(Stop::Fast).await;
    });
}

#[test]
fn a_full_disk_is_told_from_other_failures() {
    let name = "a_full_disk_is_told_from_other_failures";
    if rustix::process::geteuid().is_root() {
        let disk = tempfile::Builder::new()
            .prefix("sf-disk-")
            .tempdir_in("/tmp")
            .unwrap();
        let path = disk.path().to_str().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=120m,mode=0777", "tmpfs", path])
            .status()
            .unwrap();
        if !mounted.success() {
            println!("skipped: no tmpfs can be mounted here");
            return;
        }
        let _unmount = Unmount(path);
        return run_as_postgres(name, &[(DISK, path)]);
    }
    let Ok(disk) = std::env::var(DISK) else {
        println!("skipped: only root can mount a small disk");
        return;
    };
    run(name, async {
        let mut node = Node::new("a");
        let mut options = node.options.clone();
        options.data_dir = Path::new(&disk).join("data");
        node.options = options.clone();
        node.instance = Instance::open(options).unwrap();
        let instance = node.instance.clone();
        instance.init().await.unwrap();
        instance.start_primary(LONG).await.unwrap();
        instance.probe_write(LONG).await.unwrap();
        let ballast = Path::new(&disk).join("ballast");
        let fill = || {
            let mut file = std::fs::File::options()
                .append(true)
                .create(true)
                .open(&ballast)
                .unwrap();
            while file.write_all(&[0; 4096]).is_ok() {}
        };
        fill();
        let full = instance.probe_write(LONG).await.unwrap_err();
        assert!(matches!(full, PostgresError::DiskFull { .. }), "{full}");
        // It answers all the same: that is why the probe writes.
        node.probe().await;
        tokio::time::timeout(LONG, instance.knock())
            .await
            .unwrap()
            .unwrap();
        node.stop(Stop::Immediate).await;
        // Its end has freed a page or two; and over the old lock file it could write the new one.
        std::fs::remove_file(node.options.data_dir.join("postmaster.pid")).unwrap();
        fill();
        let error = instance.start_standby(None, LONG).await.unwrap_err();
        assert!(
            matches!(error, PostgresError::DiskFull { .. }) && error.is_storage(),
            "{error}"
        );
        std::fs::remove_file(&ballast).unwrap();
        instance.start_standby(None, LONG).await.unwrap();
        // A promotion needs room for WAL: it fails, and says so, instead of being waited for.
        fill();
        let error = instance.promote(LONG).await.unwrap_err();
        assert!(matches!(error, PostgresError::DiskFull { .. }), "{error}");
        assert!(matches!(
            instance.last_words(),
            PostgresError::DiskFull { .. }
        ));
        std::fs::remove_file(&ballast).unwrap();
        node.stop(Stop::Immediate).await;
        std::fs::remove_dir_all(Path::new(&disk).join("data")).unwrap();
    });
}

struct Unmount<'a>(&'a str);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
