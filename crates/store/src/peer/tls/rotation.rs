//! Certificates are renewed while the node runs: changed files are read again.
//!
//! **Invariant:** what cannot be used never takes the place of what can.
//! Files are looked at from a thread of the blocking pool, one look at a time: a hung disk holds up nothing else.

use super::credentials::{Credentials, later};
use super::{Shared, TlsError, TlsOptions};
use crate::lock;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio_rustls::rustls::pki_types::UnixTime;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate that ends in less is warned of.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// What was seen of the files, and what was said about them.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    /// The files of the credentials in force, as they were before they were read.
    in_force: Stamps,
    /// Files that could not be used, and whether that was said.
    failed: Option<(Stamps, bool)>,
    said_of_end: End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    #[default]
    Far,
    Soon,
    Past,
}

/// What tells a file that was replaced from the one before.
type Stamps = [Option<[i64; 7]>; 3];

impl Rotation {
    pub(super) fn begin(options: &TlsOptions) -> Self {
        Self {
            in_force: stamps(options),
            ..Self::default()
        }
    }
}

fn stamps(options: &TlsOptions) -> Stamps {
    // Follows links: some rotate by pointing one elsewhere.
    let stamp = |path: &Path| {
        let file = std::fs::metadata(path).ok()?;
        let (device, inode, size) = (file.dev(), file.ino(), file.size());
        Some([
            device.cast_signed(),
            inode.cast_signed(),
            size.cast_signed(),
            file.mtime(),
            file.mtime_nsec(),
            file.ctime(),
            file.ctime_nsec(),
        ])
    };
    [&options.certificate, &options.key, &options.authority].map(|path| stamp(path))
}

/// Looks at the files until nobody uses the credentials any more.
pub(super) async fn watch(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        // It fails only when the runtime ends.
        if tokio::task::spawn_blocking(move || shared.look())
            .await
            .is_err()
        {
            return;
        }
    }
}

impl Shared {
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        let stamps = stamps(&self.options);
        let mut rotation = lock(&self.rotation);
        let credentials = Credentials::load(&self.options, UnixTime::now())?;
        *lock(&self.current) = Arc::new(credentials);
        *rotation = Rotation {
            in_force: stamps,
            ..Rotation::default()
        };
        Ok(())
    }

    pub(super) fn look(&self) {
        let stamps = stamps(&self.options);
        let (changed, failed) = {
            let rotation = lock(&self.rotation);
            (rotation.in_force != stamps, rotation.failed)
        };
        if changed {
            match self.reload() {
                Ok(()) => tracing::info!(
                    certificate = %self.options.certificate.display(),
                    "the certificates were read again; new connections use them"
                ),
                Err(error) => {
                    let before = failed.filter(|(known, _)| *known == stamps);
                    // At the first look the one who writes them may not have finished.
                    if let Some((_, false)) = before {
                        say_unusable(&error);
                    }
                    lock(&self.rotation).failed = Some((stamps, before.is_some()));
                }
            }
        }
        self.look_at_end(UnixTime::now());
    }

    /// Peers that are connected stay so; what is past its end is noticed only by those who connect anew.
    fn look_at_end(&self, now: UnixTime) {
        let credentials = Arc::clone(&lock(&self.current));
        let ends = credentials.ends_before(&self.options, later(now, SOON));
        let end = match ends {
            None => End::Far,
            Some(ends) if ends > now.as_secs() => End::Soon,
            Some(_) => End::Past,
        };
        let mut rotation = lock(&self.rotation);
        if end > rotation.said_of_end {
            let certificate = self.options.certificate.display();
            let at = ends.and_then(super::credentials::moment);
            match end {
                End::Far => {}
                End::Soon => tracing::warn!(%certificate, at, "the certificate expires soon"),
                End::Past => tracing::error!(
                    %certificate,
                    at,
                    "the certificate has expired: no new connection of this node is accepted"
                ),
            }
            rotation.said_of_end = end;
        }
    }
}

fn say_unusable(error: &TlsError) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(
        %error,
        cause,
        "the changed certificates cannot be used, those read before stay in force"
    );
}
