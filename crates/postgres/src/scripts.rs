//! The user's own program on a cluster that was just founded: `bootstrap.post_bootstrap`.
//!
//! **Invariant:** one whose future is dropped is dead, and none runs for ever.

use crate::config;
use crate::error::PostgresError;
use crate::instance::Instance;
use crate::program::Program;
use crate::quote::conninfo;
use std::path::PathBuf;
use std::time::Duration;

/// One that never ends must not keep the cluster from being founded.
const LIMIT: Duration = Duration::from_secs(600);

impl Instance {
    /// Runs the program; its last argument is how to connect, as superuser over the private socket.
    ///
    /// # Errors
    /// When it can't be run, fails, or takes too long.
    pub async fn after_init(&self, command: &[String]) -> Result<(), PostgresError> {
        let [path, arguments @ ..] = command else {
            return Ok(());
        };
        let options = self.options();
        let socket = config::Paths::new(&options.state_dir).socket_dir;
        let (socket, port) = (socket.display().to_string(), options.port.to_string());
        let connection = conninfo([
            ("host", socket.as_str()),
            ("port", port.as_str()),
            ("user", options.superuser.user.as_str()),
            ("dbname", options.database.as_str()),
        ]);
        let program = Program::new("post_bootstrap", PathBuf::from(path))
            .args(arguments)
            .arg(connection);
        match tokio::time::timeout(LIMIT, program.succeed()).await {
            Ok(ended) => ended.map(drop),
            Err(_) => Err(PostgresError::Timeout {
                doing: "running post_bootstrap",
                after: LIMIT,
            }),
        }
    }
}
