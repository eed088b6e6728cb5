//! Replays `fuzz/corpus`: what fuzzing has found worth keeping, and the bad inputs we thought of.
//! A file's directory says for which check it was made; it is told to the others too.

use crate::checks;
use std::path::Path;

#[test]
fn the_corpus_does_no_harm() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut replayed = 0;
    for directory in std::fs::read_dir(&corpus).expect("the corpus").flatten() {
        let files = std::fs::read_dir(directory.path()).expect("a directory");
        for file in files.flatten() {
            let bytes = std::fs::read(file.path()).expect("a file");
            let check = std::panic::catch_unwind(|| {
                checks::frontend(&bytes);
                checks::backend(&bytes);
                checks::opening(&bytes);
                checks::session(&bytes);
                checks::scram(&bytes);
            });
            assert!(check.is_ok(), "{}", file.path().display());
            replayed += 1;
        }
    }
    assert!(replayed > 50, "only {replayed} files");
}
