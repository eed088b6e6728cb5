//! Certificates are renewed while the node runs: changed files are read again.
//!
//! **Invariant:** what cannot be used never takes the place of what can.
//! Files are looked at from a thread of the blocking pool, one look at a time: a hung disk holds up nothing else.

use super::credentials::{Credentials, later};
use super::{Shared, TlsOptions};
use crate::lock;
use certs::{TlsError, moment};
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

/// What a look at the files brought that a person should read.
#[derive(Debug)]
pub(super) enum News {
    Renewed,
    /// Since the look before this one; at the first, the one who writes them may not have finished.
    Unusable(TlsError),
    /// The certificate ends at this second of the calendar.
    EndsSoon(u64),
    Ended(u64),
}

/// Looks at the files until nobody uses the credentials any more.
pub(super) async fn watch(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let options = shared.options.clone();
        // It fails only when the runtime ends.
        let Ok(news) = tokio::task::spawn_blocking(move || shared.look(UnixTime::now())).await
        else {
            return;
        };
        for news in news {
            say(&news, &options);
        }
    }
}

fn say(news: &News, options: &TlsOptions) {
    let certificate = options.certificate.display();
    match news {
        News::Renewed => tracing::info!(
            %certificate,
            "the certificates were read again, new connections use them"
        ),
        News::Unusable(error) => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(
                %error,
                cause,
                "the changed certificates cannot be used, those read before stay in force"
            );
        }
        News::EndsSoon(at) => {
            let at = moment(*at);
            tracing::warn!(%certificate, at, "the certificate expires soon");
        }
        News::Ended(at) => {
            let at = moment(*at);
            tracing::error!(
                %certificate,
                at,
                "the certificate has expired: no new connection of this node is accepted"
            );
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

    pub(super) fn look(&self, now: UnixTime) -> Vec<News> {
        let renewal = self.renew_if_changed();
        renewal.into_iter().chain(self.end(now)).collect()
    }

    fn renew_if_changed(&self) -> Option<News> {
        let stamps = stamps(&self.options);
        let (in_force, failed) = {
            let rotation = lock(&self.rotation);
            (rotation.in_force, rotation.failed)
        };
        if in_force == stamps {
            return None;
        }
        // What is not valid yet may be by now, so it is tried each time.
        let Err(error) = self.reload() else {
            return Some(News::Renewed);
        };
        let before = failed.filter(|(known, _)| *known == stamps);
        lock(&self.rotation).failed = Some((stamps, before.is_some()));
        matches!(before, Some((_, false))).then_some(News::Unusable(error))
    }

    /// Peers that are connected stay so; an end that has passed is noticed only by those who connect anew.
    fn end(&self, now: UnixTime) -> Option<News> {
        let credentials = Arc::clone(&lock(&self.current));
        let at = credentials.ends_before(&self.options, later(now, SOON));
        let end = match at {
            None => End::Far,
            Some(at) if at > now.as_secs() => End::Soon,
            Some(_) => End::Past,
        };
        let mut rotation = lock(&self.rotation);
        if end <= rotation.said_of_end {
            return None;
        }
        rotation.said_of_end = end;
        match end {
            End::Far => None,
            End::Soon => at.map(News::EndsSoon),
            End::Past => at.map(News::Ended),
        }
    }
}
